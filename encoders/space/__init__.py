"""Vectors of several modalities to one space: networks, training, closed forms."""

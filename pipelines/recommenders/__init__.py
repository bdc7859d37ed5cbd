"""Recommenders behind one protocol: arrays in, scores out. No storage, no Beam, no ids."""

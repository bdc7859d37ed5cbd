"""Recommenders that combine others: the hybrid, transfer to new items."""

"""The embedded demo: a small shop with planted taste, and the nights that run over it."""

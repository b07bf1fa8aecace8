"""Datasets: immutable versions by the hash of what is in them, checked when they come in."""

"""Months that are closed: what was billed is not changed any more."""

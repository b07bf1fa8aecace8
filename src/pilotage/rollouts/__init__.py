"""Rollouts: a change of what serves, step by step, decided by evidence."""

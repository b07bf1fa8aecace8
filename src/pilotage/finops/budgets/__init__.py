"""Budgets: what may be spent, and how much of it is."""

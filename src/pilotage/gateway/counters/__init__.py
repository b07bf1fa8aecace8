"""Limits and budgets: what calls may use together, counted so that no budget is overrun."""

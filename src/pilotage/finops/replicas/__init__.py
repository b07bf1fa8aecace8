"""Replicas of our own: when they ran, and what that costs."""

"""Notices: who is told of alerts, where, and how often."""

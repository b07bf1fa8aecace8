"""Backups: one archive of everything an installation knows, and its way back."""

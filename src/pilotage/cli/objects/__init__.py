"""Objects in files: what may stand in them, what applying them would change, and drift."""

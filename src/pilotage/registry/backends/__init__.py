"""Places that model files come from, one file each."""

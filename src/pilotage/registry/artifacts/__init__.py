"""Artifacts: files and file trees by the hash of what is in them, and what was seen in them."""

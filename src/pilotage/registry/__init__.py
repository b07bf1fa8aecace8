"""Registry: models, their versions and files, where each came from and what it may be used for."""

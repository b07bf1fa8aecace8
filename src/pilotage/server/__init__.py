"""The control plane's HTTP door: one FastAPI application over the slices' routes."""

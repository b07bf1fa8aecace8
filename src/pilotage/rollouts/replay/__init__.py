"""Calls that were kept are asked of two deployments again, and their answers compared in pairs."""

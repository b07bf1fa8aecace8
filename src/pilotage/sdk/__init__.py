"""Clients of the control API and of the gateway, for Python programs and for the CLI."""

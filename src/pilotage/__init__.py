"""Pilotage: one gateway for every model call, one release path for every model change."""

__version__ = "0.1.0"

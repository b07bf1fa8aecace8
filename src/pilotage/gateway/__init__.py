"""The data plane: one chain of small steps around every model call."""

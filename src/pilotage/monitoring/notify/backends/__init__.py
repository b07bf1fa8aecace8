"""The ways a notice can take: one module for each kind of channel."""

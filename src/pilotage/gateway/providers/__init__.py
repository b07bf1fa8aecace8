"""The ends of the chain: who answers a call."""

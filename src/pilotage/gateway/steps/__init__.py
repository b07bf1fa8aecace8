"""The steps of the chain, one in each file."""

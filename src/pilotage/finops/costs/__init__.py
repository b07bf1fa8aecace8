"""What everything costs: calls summed up, and what is no call."""

"""Which arm answers a call, and what is done when it does not."""

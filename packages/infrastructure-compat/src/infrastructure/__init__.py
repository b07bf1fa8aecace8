"""Names of an earlier program, for what Pilotage does now."""

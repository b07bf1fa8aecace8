"""Every call that ended as a row of its own, in files that are asked by SQL."""

"""Who did what, when and why: a hash-chained copy of every revision."""

"""What is measured of the texts of a sampled share of calls, outside their way."""

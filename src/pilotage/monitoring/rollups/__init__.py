"""What calls add up to, by minute, hour and day."""

"""What costs tell: forecasts, days that stand out, what releases cost, what was saved."""

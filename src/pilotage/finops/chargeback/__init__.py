"""Chargeback: costs as FOCUS rows, and a provider's invoice beside them."""

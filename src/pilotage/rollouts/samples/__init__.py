"""Calls that tenants let be kept, sealed, to be asked of another model again."""

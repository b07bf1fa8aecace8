"""What calls cost: the price book and the ledger."""

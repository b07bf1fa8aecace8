"""What comparing the answers to calls and to their copies adds up to."""

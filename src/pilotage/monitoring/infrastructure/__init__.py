"""What replicas and their machine are used to."""

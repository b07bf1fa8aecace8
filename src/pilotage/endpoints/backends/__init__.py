"""Who runs replicas."""

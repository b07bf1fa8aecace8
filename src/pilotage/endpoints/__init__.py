"""Endpoints: where model versions answer - deployments, replicas and the engines that run them."""

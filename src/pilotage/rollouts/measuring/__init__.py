"""What is counted of the calls of rollouts, each exactly once, for their gates to look at."""

"""What the coordinator counts and records of itself, for those who look at it from outside."""

"""What `obcd bench` and `obcd burn-in` measure, and how they judge it."""

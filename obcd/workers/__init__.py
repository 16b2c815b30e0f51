"""The worker processes, one for each endpoint, and the pool that keeps them running."""

"""Floor 4: the processes tied to endpoints, and the pool that keeps them."""

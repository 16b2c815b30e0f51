"""The processes tied to endpoints, and the pool that keeps them."""

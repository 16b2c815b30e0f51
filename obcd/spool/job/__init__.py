"""The folder of one job, and the cache and records beside it."""

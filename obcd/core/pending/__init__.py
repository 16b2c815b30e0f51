"""The requests of jobs that have no result yet, and their order. Pure."""

"""Look into a job by its name, from the drop to the outbox."""

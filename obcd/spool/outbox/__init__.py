"""What stands in the outbox."""

"""The folders of the outbox."""

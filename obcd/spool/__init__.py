"""The folders on disk: inbox, jobs, ledger, outbox."""

"""Floor 3: the folders on disk: inbox, jobs, ledger, outbox."""

"""Floor 5: the process that owns inbox, jobs, ledger, scheduler and pool."""

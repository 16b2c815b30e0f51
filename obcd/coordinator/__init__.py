"""The process that owns inbox, jobs, ledger, scheduler and pool."""

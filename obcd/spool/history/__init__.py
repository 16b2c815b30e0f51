"""The history of a spool: a line a minute on what the cluster did, kept for a fortnight."""

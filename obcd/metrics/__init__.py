"""The coordinator's status as metrics of Prometheus, made outside the coordinator."""

"""Commands that show the cluster and its jobs to people and to other programs."""

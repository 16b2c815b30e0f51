"""From a drop to an accepted job, and back after a crash."""

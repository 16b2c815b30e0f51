"""Watch a job: what its coordinator shows, and how that is shown to a person."""

"""Accept a drop as a job, and recover jobs after a crash."""

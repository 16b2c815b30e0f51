"""One job's folder and what stands beside it."""

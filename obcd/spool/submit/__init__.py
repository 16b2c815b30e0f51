"""The submitter's side: drop files safely."""

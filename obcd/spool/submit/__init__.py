"""The submitter's side: dropping files safely."""

"""Answers and failures, read from what was published."""

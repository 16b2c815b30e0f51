"""Answers as one document."""

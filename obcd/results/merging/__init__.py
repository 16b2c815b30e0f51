"""Merge responses into one document."""

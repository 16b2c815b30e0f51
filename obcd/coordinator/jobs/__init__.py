"""Accepted jobs, until they are published."""

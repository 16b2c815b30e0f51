"""The endpoints and their workers."""

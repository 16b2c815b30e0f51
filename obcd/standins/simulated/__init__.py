"""A simulated GPU server."""

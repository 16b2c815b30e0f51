"""A model of a GPU server."""

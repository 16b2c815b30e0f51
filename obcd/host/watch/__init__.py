"""Watching the servers of a host, and restarting them."""

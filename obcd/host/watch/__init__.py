"""Watch the servers of a host and restart them."""

"""The servers of a host: planning and starting them."""

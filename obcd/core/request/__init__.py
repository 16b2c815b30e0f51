"""From a line of a file to the request that is sent. Pure."""

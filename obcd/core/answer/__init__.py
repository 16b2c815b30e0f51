"""From the reply of a server to the result of a line. Pure."""

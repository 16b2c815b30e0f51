"""From a reply to the result of a line. Pure."""

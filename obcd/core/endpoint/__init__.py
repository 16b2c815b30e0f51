"""What is known of one endpoint, and what to do about it. Pure."""

"""What obcd knows about one endpoint, and what it decides from that. Pure."""

"""From the inbox to accepted jobs."""

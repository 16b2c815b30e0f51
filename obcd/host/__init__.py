"""Floor 4: servers kept by supervisor."""

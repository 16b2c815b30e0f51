"""Floor 6: putting obcd under systemd, and taking it away again."""

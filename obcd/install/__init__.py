"""Putting obcd under systemd, and taking it away again."""

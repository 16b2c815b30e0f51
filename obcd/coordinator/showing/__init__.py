"""How the coordinator shows what it does: its view, and the line for systemd."""

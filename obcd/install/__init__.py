"""Install obcd as systemd services, and remove it."""

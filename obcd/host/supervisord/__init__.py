"""supervisord: its configuration and its interface."""

"""What lies in the inbox."""

"""What `obcd check` examines."""

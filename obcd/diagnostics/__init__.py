"""Floor 6: what `obcd check` examines."""

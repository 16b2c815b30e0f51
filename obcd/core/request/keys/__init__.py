"""Keys of lines that have no effect, that are dropped, or that are almost right."""

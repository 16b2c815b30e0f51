"""File formats: CSV, JSON lines, gzip. Pure."""

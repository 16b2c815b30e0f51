"""JSON, and JSON schemas. Pure."""

"""Floor 6: what people do before they drop a file: prepare, convert, draft a schema."""

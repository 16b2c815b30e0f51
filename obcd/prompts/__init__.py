"""What people do before they drop a file: prepare, convert, draft a schema."""

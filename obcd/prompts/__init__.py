"""Work before a file is dropped: prepare, convert, draft a schema."""

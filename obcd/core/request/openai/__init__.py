"""Lines of OpenAI Batch files, read. Pure."""

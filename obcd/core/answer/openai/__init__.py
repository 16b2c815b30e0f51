"""Lines of OpenAI Batch files, written. Pure."""

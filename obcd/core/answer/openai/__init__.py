"""Writing lines of OpenAI Batch files. Pure."""

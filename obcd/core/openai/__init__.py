"""OpenAI Batch files: their lines in, and lines that its clients read out. Pure."""

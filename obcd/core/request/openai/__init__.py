"""Reading lines of OpenAI Batch files. Pure."""

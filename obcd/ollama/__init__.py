"""The client of one Ollama server, and the judgement of its replies."""

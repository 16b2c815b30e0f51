"""Floor 3: speaking to one Ollama server and judging what it says."""

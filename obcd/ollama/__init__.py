"""Speaking to one Ollama server and judging what it says."""

"""Floor 4: servers that stand in for Ollama: embedded (real inference) and simulated."""

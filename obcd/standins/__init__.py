"""Stand-in servers for Ollama: embedded (real inference) and simulated."""

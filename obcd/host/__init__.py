"""One Ollama server for each GPU of this machine, kept by supervisor."""

"""Servers that stand in for Ollama: embedded (real inference) and simulated."""

"""Ollama's HTTP API over any engine."""

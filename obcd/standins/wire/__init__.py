"""Ollama's HTTP API for any engine."""

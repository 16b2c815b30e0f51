"""obcd, the Ollama Batch Cluster Daemon: drop a JSONL file into a folder, find the answers in another."""

__version__ = "0.2.0"

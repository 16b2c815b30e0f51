"""obcd, the Ollama Batch Cluster Daemon: drop a JSONL file into one folder, find the results in another."""

__version__ = "0.2.0"

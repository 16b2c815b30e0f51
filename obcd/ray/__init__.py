"""Servers on the GPUs of a Ray cluster: Ray owns GPUs and processes, the keeper registers what they serve."""

"""The child processes that read and write whole files."""

"""Try a few lines of a file: which lines, what was sent, and what the whole file will take."""

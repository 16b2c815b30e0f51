"""What the commands of `obcd host` ask of a running host."""

"""The commands of `obcd host`."""

"""Functions for the commands that control a running host."""

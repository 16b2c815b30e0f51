"""The lines of the history, made from the coordinator's views."""

"""The configuration: its frozen models, how it is read, and how it is written."""

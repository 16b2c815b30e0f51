"""Commands that measure, and commands that run stand-in servers."""

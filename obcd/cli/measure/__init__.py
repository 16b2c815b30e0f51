"""Commands that measure, and stand-in servers."""

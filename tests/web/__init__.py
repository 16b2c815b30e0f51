"""Tests that need what only they need: a browser, promtool, the programs that read obcd's answers (`make test-web`)."""

"""Log lines: their form, the journal, bursts."""

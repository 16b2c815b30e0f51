"""Log records: their format, the journal, bursts."""

"""Send notifications of events: by a command, a webhook or a mail."""

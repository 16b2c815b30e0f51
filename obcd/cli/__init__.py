"""Floor 7: the commands; the only place that prints, and turns errors into exit codes."""

"""Floor 1: states, records, lines, retry, scheduling. Pure: no I/O, and time is an argument."""

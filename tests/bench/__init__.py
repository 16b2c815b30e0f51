"""`make bench`: measures obcd with real processes and simulated servers on loopback. No test: nothing fails by time."""

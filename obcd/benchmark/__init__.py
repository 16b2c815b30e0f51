"""Floor 6: `obcd bench` and `obcd burn-in`: load, measures, verdicts."""

"""The measurements of `obcd bench` and `obcd burn-in`, and their judgement."""

"""Floor 2: the configuration as frozen models, its reading, and the generated sample."""

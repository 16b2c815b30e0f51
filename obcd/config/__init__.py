"""The configuration as frozen models, its reading, and the generated sample."""

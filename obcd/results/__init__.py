"""Floor 6: what people do with answers: read, merge, print, verify."""

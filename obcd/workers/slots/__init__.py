"""The slots of a worker: a thread each, which reads a request, sends it, and returns its result."""

"""Real inference on the CPU with llama.cpp."""

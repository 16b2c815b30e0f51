"""Real inference on the CPU by llama.cpp."""

"""Commands about files of prompts and of answers."""

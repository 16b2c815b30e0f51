"""Commands for files of prompts and of answers."""

"""Read responses and failures from published folders."""

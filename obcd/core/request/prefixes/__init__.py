"""Which requests of a job share a long beginning of their prompts."""

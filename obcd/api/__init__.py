"""OpenAI's Files and Batches over HTTP (`obcd api`): a process of its own, which drops what it gets into the inbox."""

"""OpenAI's Files and Batches over HTTP (`obcd api`): a separate process, which drops what it gets into the inbox."""

"""The Python client: submit rows, wait for jobs, read their results, without the command line."""

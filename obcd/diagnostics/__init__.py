"""The examinations of `obcd check`."""

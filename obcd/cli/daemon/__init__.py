"""Commands that run, install and check obcd."""

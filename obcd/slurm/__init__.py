"""Slurm: the script of a job that runs hosts, and its tasks."""

"""The rules: requests, answers, tables, schemas, endpoints, scheduling. Pure: no I/O, and time is an argument."""

"""Rows in, columns of answers out, for tables of any library."""

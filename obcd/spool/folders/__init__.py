"""Folders, permissions, disk space, and all calls that change them."""

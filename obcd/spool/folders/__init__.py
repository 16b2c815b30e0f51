"""Folders, permissions, disk space, and every call that changes them."""

"""What people do with answers: read, merge, print, verify."""

"""Work with published responses: read, merge, print, verify."""

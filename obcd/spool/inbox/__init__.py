"""The files of the inbox: drops and control files."""

"""Reading conversations in the forms that people have. Pure."""

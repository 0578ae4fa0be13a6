"""Tools that make and grade the assignments."""

"""Graded assignments: sources, the student notebooks made from them, and the tools that make and grade them."""

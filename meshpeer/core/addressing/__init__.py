"""Written by its room."""

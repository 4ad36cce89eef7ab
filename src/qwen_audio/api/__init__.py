"""AudioModel and its methods."""

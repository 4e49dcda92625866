"""What an operator sees of work that takes time."""

"""What the commands do that is more than passes, one module a command."""

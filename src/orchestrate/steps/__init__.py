"""What the commands do, one module a command: the only place where plans become effects."""

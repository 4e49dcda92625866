"""What each block of a target is known to hold, the file that keeps it, and whether to believe it."""

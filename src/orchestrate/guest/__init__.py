"""A guest from inside: its files, its boot, and the fix-ups."""

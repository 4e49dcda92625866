"""Whole passes, side by side with every peer that is installed: `make bench`."""

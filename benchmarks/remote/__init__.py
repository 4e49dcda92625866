"""Passes between two hosts, side by side with every peer that is installed: `make bench-remote`."""

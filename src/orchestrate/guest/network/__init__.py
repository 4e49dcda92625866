"""The NICs and addresses that a guest's own files name."""

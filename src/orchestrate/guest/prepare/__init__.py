"""What is done to a guest while it still runs under Xen."""

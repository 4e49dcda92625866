"""The blocksync command: its table of commands, what it runs, how it ends."""

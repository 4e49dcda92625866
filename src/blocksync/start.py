"""The entry point of `blocksync`: signals wait until all that says what became of the command is loaded."""

from blocksync.commands import signals

signals.hold()


def main() -> None:
    """`blocksync`"""
    from blocksync.commands import entry  # noqa: PLC0415

    entry.main()

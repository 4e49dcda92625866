"""The entry point of `blocksync`: signals wait until all that says what became of the command is loaded."""

from blocksync import signals

signals.hold()


def main() -> None:
    """`blocksync`"""
    from blocksync import cli  # noqa: PLC0415

    cli.main()

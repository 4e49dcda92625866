"""The entry point of `xen2kvm`: signals wait until all that says what became of the command is loaded."""

from blocksync.commands import signals

signals.hold()


def main() -> None:
    """`xen2kvm`"""
    from orchestrate import cli  # noqa: PLC0415

    cli.main()

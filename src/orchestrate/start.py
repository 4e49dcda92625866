"""The entry point of `xen2kvm`."""

import blocksync.start  # Before all that takes its time to load.


def main() -> None:
    """`xen2kvm`"""
    assert blocksync.start
    from orchestrate import cli  # noqa: PLC0415

    cli.main()

"""Which guards `--override` takes, command by command."""

from collections.abc import Iterable

import typer

from blocksync.devices import guards
from blocksync.errors import Usage


def of(command: str) -> frozenset[str]:
    """The guards that a command asks and that may be left out; none where it has no --override."""
    # Loaded when they are asked for: every start of a command would pay for it.
    from orchestrate.copying import target_disk  # noqa: PLC0415
    from orchestrate.handover import preflight  # noqa: PLC0415
    from orchestrate.plan import compose  # noqa: PLC0415

    of_passes = guards.OVERRIDABLE | target_disk.GUARDS
    return {
        "plan": compose.OVERRIDABLE,
        "sync": of_passes,
        "precopy": of_passes,
        "cutover": of_passes | preflight.GUARDS,
    }.get(command, frozenset())


def require_known(command: str, names: Iterable[str]) -> None:
    """Raises Usage for a name that is none of the command's guards."""
    for name in names:
        if name not in (known := of(command)):
            told = ", ".join(sorted(known))
            raise Usage(
                f"--override {name}", f"is no guard that `{command}` can leave out", f"one of: {told}"
            )


def complete(context: typer.Context, incomplete: str) -> list[str]:
    """What a shell is told of them."""
    return sorted(name for name in of(context.info_name or "") if name.startswith(incomplete))

"""The options that commands share, and what they mean."""

import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blocksync.display.display import Display
from blocksync.errors import Usage
from blocksync.transports.choice import Kind
from blocksync.transports.reach import Reach
from orchestrate.commands import overrides
from orchestrate.job.stopwatch import Stopwatch

if TYPE_CHECKING:
    from orchestrate.copying.snapshot_sets import Quiesce

PlanFile = Annotated[Path, typer.Argument(help="The plan, as `xen2kvm plan` wrote it.", metavar="GUEST.toml")]
JobDir = Annotated[
    Path | None,
    typer.Option("--job-dir", help="Where the job's state is kept. Default: /var/lib/xen2kvm/GUEST."),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, also on failure.")
]
LogJson = Annotated[
    bool,
    typer.Option(
        "--log-json",
        help="Progress, notes and errors as JSON lines on standard error, and nothing else there.",
    ),
]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colours; the variable NO_COLOR does the same.")]
Override = Annotated[
    list[str] | None,
    typer.Option(
        "--override",
        help="Pass the guard of this name. Repeatable.",
        metavar="GUARD",
        autocompletion=overrides.complete,
    ),
]
Accel = Annotated[str, typer.Option("--accel", help="auto, kvm or tcg; XEN2KVM_ACCEL wins over it.")]
Transport = Annotated[
    Kind, typer.Option("--transport", help="How the other host is reached: auto, openssh, paramiko or tls.")
]
Fingerprint = Annotated[
    str | None,
    typer.Option(
        "--host-key-fingerprint", help="SHA256:... of the other host's key, where known_hosts lacks it."
    ),
]
SshConfig = Annotated[
    Path | None,
    typer.Option(
        "--ssh-config",
        help="An ssh_config(5) to read instead of your own; the variable XEN2KVM_SSH_CONFIG does the same.",
        metavar="FILE",
    ),
]
Again = Annotated[
    bool,
    typer.Option(
        "--again",
        help="Make a copy again of a disk that was handed over: gives up what the guest wrote there; asks.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Give up what the guest wrote on KVM without a question.")]
Bandwidth = Annotated[
    str | None, typer.Option("--bwlimit", help="Bytes a second at most, such as 40MiB.", metavar="RATE")
]
NoSnapshots = Annotated[
    bool, typer.Option("--no-snapshots", help="Copy from the volumes themselves, and read all of them.")
]
QuiesceCommand = Annotated[
    str | None,
    typer.Option(
        "--quiesce",
        help="Run on the volumes' host before the snapshots are made, such as `ssh guest fsfreeze -f /`. "
        "Without it, a guest of several volumes is paused meanwhile.",
        metavar="COMMAND",
    ),
]
UnquiesceCommand = Annotated[
    str | None,
    typer.Option("--unquiesce", help="Run there afterwards, whatever happens.", metavar="COMMAND"),
]


def reaching(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose parameter `reach` is a Reach, the options that say how a host is reached."""

    def reached(
        *,
        transport: Transport = "auto",
        host_key_fingerprint: Fingerprint = None,
        ssh_config: SshConfig = None,
        **others: object,
    ) -> None:
        reach = Reach(transport=transport, fingerprint=host_key_fingerprint, config=ssh_config)
        command(**others, reach=reach)

    own = inspect.signature(command).parameters.values()
    options = list(inspect.signature(reached).parameters.values())[:-1]
    parameters = [one for each in own for one in (options if each.name == "reach" else [each])]
    reached.__name__, reached.__doc__ = command.__name__, command.__doc__
    # What typer reads.
    reached.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    reached.__annotations__ = {each.name: each.annotation for each in parameters}
    return reached


def quiescing(seize: str | None, release: str | None) -> "Quiesce | None":
    """The two commands that hold a guest; one without the other is a mistake."""
    from orchestrate.copying.snapshot_sets import Quiesce  # noqa: PLC0415

    if (seize is None) != (release is None):
        raise Usage("--quiesce and --unquiesce", "belong together", "give both, or none")
    return None if seize is None or release is None else Quiesce(seize, release)


def seconds(text: str) -> float:
    """A time such as 10s, 2m, 1.5h or 10 (seconds), in seconds. Raises Usage."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text, re.ASCII)
    if found is None or not float(found[1]):
        raise Usage(text, "is no time", "write a number above zero, and s, m or h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def color(no_color: bool) -> bool:
    """Whether to print in colours."""
    return not (no_color or os.environ.get("NO_COLOR"))


def stopwatch(display: Display, *, silent: bool = False) -> Stopwatch:
    """A stopwatch that shows each step while it lasts and, unless it is `silent`, as it ends."""
    return Stopwatch(
        begins=display.begins,
        ends=lambda step: display.ends(step.name, step.seconds, silent=silent),
        breaks=display.breaks,
        tell=display.tells,
    )

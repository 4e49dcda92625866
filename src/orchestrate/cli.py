"""The command `xen2kvm`."""

import shlex
import signal
import sys

import typer

import blocksync.cli
from blocksync.errors import Interrupted
from orchestrate.commands import handover, passes, planning, rehearsal

app = typer.Typer(
    name="xen2kvm",
    help="Move paravirtual Xen guests to KVM: their volumes become one disk that boots by itself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

for command in (
    planning.prepare,
    planning.plan,
    passes.sync,
    passes.precopy,
    passes.status,
    rehearsal.rehearse,
    handover.cutover,
    handover.rollback,
    handover.finish,
):
    app.command()(command)


def main() -> None:
    """Entry point: every error becomes one message and its exit code."""
    # A closed session or a service manager's stop unwinds like Ctrl-C: mounts and overlays are put away.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    sys.exit(blocksync.cli.run(_app_that_says_how_to_go_on))


def _app_that_says_how_to_go_on() -> object:
    try:
        return app()
    except (Interrupted, KeyboardInterrupt) as stopped:
        cause = stopped.cause if isinstance(stopped, Interrupted) else "was interrupted"
        thing = stopped.thing if isinstance(stopped, Interrupted) else "xen2kvm"
        raise Interrupted(thing, cause, f"go on with: {shlex.join(['xen2kvm', *sys.argv[1:]])}") from stopped

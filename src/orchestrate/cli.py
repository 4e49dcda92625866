"""The command `xen2kvm`."""

import sys

import typer

from blocksync.commands import mistakes
from blocksync.commands.outcome import conclude
from orchestrate.commands import cutover, passes, planning, rehearsal, schema, status
from orchestrate.commands.speaking import spoken

app = typer.Typer(
    name="xen2kvm",
    help="Move paravirtual Xen guests to KVM: their volumes become one disk that boots by itself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # The brackets of [user@]host are no markup.
    rich_markup_mode=None,
    context_settings=mistakes.CONTEXT,
)


@app.callback()
def _of_all_commands(*, version: mistakes.Version = False) -> None:
    """The options before a command."""


for command in (
    planning.prepare,
    planning.plan,
    passes.sync,
    passes.precopy,
    status.status,
    rehearsal.rehearse,
    cutover.cutover,
    cutover.rollback,
    cutover.finish,
    schema.schema,
):
    app.command()(spoken(command))


def main() -> None:
    """Entry point: whatever a command ends with becomes one message and its exit code."""
    words = sys.argv[1:]
    conclude("xen2kvm", words, lambda: mistakes.carried_out(app, "xen2kvm", words))

"""The operator's word for giving up what a guest wrote on KVM."""

import sys

import typer

from blocksync.errors import Refused, Usage
from blocksync.foreign import shown
from blocksync.voice import voice
from orchestrate.copying import ownership
from orchestrate.job.folder import Job


def require_word(job: Job, option: str, *, yes: bool) -> None:
    """Have the operator type the guest's name where `option` gives up what it wrote on KVM; `yes` is his word
    given before. Nothing is asked where nothing is lost.

    Raises `Usage` where there is nobody to ask, `Refused` (guard `kvm-writes`) for another name.
    """
    lost = ownership.at_stake(job)
    if lost is None or yes:
        return
    # A question would be a plain line among those of --log-json.
    if voice.json_lines or not sys.stdin.isatty():
        raise Usage(
            option,
            f"gives up {lost}; there is nobody to ask",
            "if it may be lost, add --yes; to keep it, see `xen2kvm rollback --send-back`",
        )
    name = job.plan.guest.name
    typer.echo(f"{option} gives up {shown(lost)}. It cannot be had back.", err=True)
    question = f"Type the guest's name, {name}, to give it up"
    said = typer.prompt(question, default="", show_default=False, err=True)
    if said.strip() != name:
        raise Refused(
            f"guest {name}",
            "keeps what it wrote on KVM: its name was not typed",
            "to bring it back to Xen with it: `xen2kvm rollback --send-back`",
            guard="kvm-writes",
        )

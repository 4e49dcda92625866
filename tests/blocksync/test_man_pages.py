"""The man pages say what `--help` says, and the shells complete what the commands take."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "docs/man"
PROGRAMS = ("blocksync", "xen2kvm")


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages", FOLDER / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES = dict(generator().pages())


def ask(program: str, **environment: str) -> str:
    """What a command prints to a shell that asks it for completion."""
    return subprocess.run(
        [Path(sys.executable).with_name(program)],
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
    ).stdout


def test_every_page_is_up_to_date() -> None:
    found = {path.name: path.read_text() for path in FOLDER.glob("*.1")}
    stale = sorted(name for name in found.keys() | PAGES.keys() if found.get(name) != PAGES.get(name))
    assert stale == [], "run `make man`"


@pytest.mark.parametrize("name", sorted(PAGES))
@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_has_no_warning_about_a_page(name: str) -> None:
    argv = ["groff", "-man", "-ww", "-z", FOLDER / name]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_page_names_every_command_and_each_of_its_options(program: str) -> None:
    for name in ask(program, **bash(program, "")).split():
        assert f"{program}\\-{name}" in PAGES[f"{program}.1"]
        for option in ask(program, **bash(program, f"{name} --")).split():
            assert option.replace("-", "\\-") in PAGES[f"{program}-{name}.1"]


def bash(program: str, words: str) -> dict[str, str]:
    """The environment in which bash asks for completion of the last of `words`."""
    line = f"{program} {words}"
    return {
        f"_{program.upper()}_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }


@pytest.mark.parametrize("program", PROGRAMS)
def test_bash_takes_the_completion_that_is_printed_for_it(program: str) -> None:
    script = ask(program, **{f"_{program.upper()}_COMPLETE": "source_bash"})
    checked = subprocess.run(
        ["bash", "-euc", f"{script}\ncomplete -p {program}"], check=True, capture_output=True, text=True
    )
    assert checked.stdout.endswith(f"_{program}_completion {program}\n")


@pytest.mark.parametrize("program", PROGRAMS)
def test_completion_for_zsh_is_printed(program: str) -> None:
    script = ask(program, **{f"_{program.upper()}_COMPLETE": "source_zsh"})
    assert script.lstrip().startswith(f"#compdef {program}")
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-n"], input=script, check=True, text=True)


@pytest.mark.parametrize("program", PROGRAMS)
def test_show_completion_prints_the_script_of_the_shell_it_is_called_from(program: str) -> None:
    command = Path(sys.executable).with_name(program)
    # The colon keeps bash from replacing itself with the command.
    shown = subprocess.run(
        ["bash", "-c", f"{command} --show-completion; :"], check=True, capture_output=True, text=True
    )
    assert f"_{program}_completion" in shown.stdout


def test_a_beginning_is_completed() -> None:
    assert ask("blocksync", **bash("blocksync", "ver")).split() == ["verify"]
    assert ask("blocksync", **bash("blocksync", "sync --dry")).split() == ["--dry-run"]

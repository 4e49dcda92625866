"""Who may import whom, and one table of exit codes."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from blocksync import errors
from blocksync.errors import BlocksyncError, ExitCode

SRC = Path(__file__).parents[2] / "src"

# A room may import those below it; docs/architecture.md draws this. Rooms in one line do not know each other.
SPINE = (
    ("start",),
    ("cli",),
    ("commands",),
    ("steps",),
    ("handover",),
    ("copying",),
    ("fencing",),
    ("job",),
    ("plan",),
    ("guest", "xen", "kvm", "layout"),
)
ROOMS = [room for line in SPINE for room in line]


def modules(room: str) -> list[Path]:
    """The files of a room, be it a folder or one module."""
    single = SRC / "orchestrate" / f"{room}.py"
    return [single] if single.exists() else sorted((SRC / "orchestrate" / room).rglob("*.py"))


def below(room: str) -> set[str]:
    line = next(number for number, rooms in enumerate(SPINE) if room in rooms)
    return {room, *(lower for rooms in SPINE[line + 1 :] for lower in rooms)}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module in {"orchestrate", "blocksync"} else {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in {"orchestrate", "blocksync"}}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room):
    files = modules(room)
    assert files
    for path in files:
        for name in imports(path):
            package, _, rest = name.partition(".")
            allowed = package == "blocksync" or rest.split(".")[0] in below(room)
            assert allowed, f"{path.relative_to(SRC)} imports {name}"


def test_the_engine_imports_nothing_of_the_orchestration():
    for path in (SRC / "blocksync").rglob("*.py"):
        assert not {name for name in imports(path) if name.startswith("orchestrate")}, path


def test_every_room_is_on_the_spine():
    found = {path.stem for path in (SRC / "orchestrate").iterdir() if path.suffix in {"", ".py"}}
    assert found - {"__init__", "__pycache__", "schema"} == set(ROOMS)


def test_the_architecture_names_every_module():
    page = (SRC.parent / "docs" / "architecture.md").read_text()
    words = set(re.findall(r"\w+", page))
    names = {path.stem for path in SRC.glob("*/**/*.py")} - {"__init__"}
    assert not names - words


def test_no_two_classes_have_one_name():
    # The portable agent is a program of its own: nothing imports it.
    files = [path for path in SRC.rglob("*.py") if path.stem != "portable_agent"]
    names = Counter(
        node.name
        for path in files
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_each_exit_code_belongs_to_one_kind_of_error():
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, BlocksyncError) and kind is not BlocksyncError
    ]
    codes = [kind.exit_code for kind in kinds]
    assert sorted(codes) == sorted(set(ExitCode) - {ExitCode.DONE})


def test_the_runbook_shows_the_table_of_exit_codes():
    runbook = (SRC.parent / "docs" / "runbook.md").read_text()
    for code in ExitCode:
        assert f"| {code.value} |" in runbook

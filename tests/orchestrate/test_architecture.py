"""Who may import whom, and one table of exit codes."""

import ast
from pathlib import Path

import pytest

from blocksync import errors
from blocksync.errors import BlocksyncError, ExitCode

SRC = Path(__file__).parents[2] / "src"

# What each part of the house may import of the others; docs/architecture.md draws it.
MAY_IMPORT = {
    "blocksync": {"blocksync"},
    "orchestrate/layout": {"blocksync", "orchestrate.layout"},
    "orchestrate/xen": {"blocksync", "orchestrate.xen"},
    "orchestrate/guest": {"blocksync", "orchestrate.guest", "blocksync.hosts.host"},
    "orchestrate/kvm": {"blocksync", "orchestrate.kvm"},
    "orchestrate/plan": {
        "blocksync",
        "orchestrate.guest",
        "orchestrate.layout",
        "orchestrate.plan",
        "orchestrate.guest.volumes",
        "orchestrate.xen",
    },
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module in {"orchestrate", "blocksync"} else {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in {"orchestrate", "blocksync"}}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_only_what_the_architecture_allows(part):
    files = list((SRC / part).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            allowed = any(name == root or name.startswith(f"{root}.") for root in MAY_IMPORT[part])
            assert allowed, f"{path.relative_to(SRC)} imports {name}"


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

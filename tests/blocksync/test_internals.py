"""docs/internals.md names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/internals.md").read_text()
TESTS = ROOT / "tests"


def test_every_test_that_the_document_names_exists() -> None:
    sources = {path.name: path.read_text() for path in TESTS.rglob("test_*.py")}
    defined = {
        name for text in sources.values() for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+(?:\.py)?)`", DOCUMENT))
    assert len(named) > 20
    assert named - defined - sources.keys() == set()


@pytest.mark.parametrize("letter", ["P", "L"])
def test_promises_are_numbered_without_a_gap(letter: str) -> None:
    promises = re.findall(rf"^\*\*{letter}(\d+)\.", DOCUMENT, re.MULTILINE)
    assert promises
    assert [int(number) for number in promises] == list(range(1, len(promises) + 1))

"""Any text as a plan is one clear error, or a plan that says the same once it was written and read again."""

from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from blocksync.errors import Usage
from orchestrate.plan import file
from orchestrate.plan.model import Plan

GOLDEN = [path.read_text() for path in sorted((Path(__file__).parent / "golden").glob("*.toml"))]
BUDGETS = [
    pytest.param(settings(max_examples=250, derandomize=True), id="ci"),
    pytest.param(settings(max_examples=50_000), id="long", marks=pytest.mark.long),
]
QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
Edit = Callable[[str], str]

# What people and their editors put in place of a value, and what parsers trip over.
values = st.sampled_from(
    [
        "0", "-1", "1", "512", "2048", "1.5", "inf", "nan", "1e400", "9223372036854775807", "9" * 5000,
        "0x10", "1_000", "true", "[]", "{}", "[[]]", "[" * 2000, '""', '"a\\u0000b"', '"\\ud800"', "'x'",
        '"../x"', '"' + "(" * 5000 + '"', '"a{99999999999999999999}"', '"(?P<a>"', '"[[:x:]]"', '"(a+)+$"',
        "1979-05-27T07:32:00Z", "07:32:00", '"""', "\ufeff", "\x00", "gpt", '"gpt"', '"mbr"', '"swap"',
        '"recreate"', '"copy"', '"x86_64"', '"ext4"', '"xvda1"', '"/dev/vg0/web1"', '["a", 1]',
    ]
)  # fmt: skip
places = st.floats(0, 1, exclude_max=True)


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """One change to a plan: a value, a line taken out, doubled or moved, a piece of text, an end cut off."""
    place, other, value = draw(places), draw(places), draw(values)
    text, taken = draw(st.text(max_size=8)), draw(st.integers(0, 20))
    kind = draw(st.sampled_from(["value", "value", "value", "drop", "double", "move", "text", "cut"]))

    def edit(plan: str) -> str:
        lines = plan.split("\n")
        at, to = int(place * len(lines)), int(other * len(lines))
        match kind:
            case "value":
                fields = [number for number, line in enumerate(lines) if " = " in line] or [0]
                at = fields[int(place * len(fields))]
                lines[at] = f"{lines[at].partition(' = ')[0]} = {value}"
            case "drop":
                del lines[at]
            case "double":
                lines.insert(at, lines[at])
            case "move":
                lines.insert(to, lines.pop(at))
            case "text":
                start = int(place * len(plan))
                return plan[:start] + text + plan[start + taken :]
            case _:
                return plan[: int(place * len(plan))]
        return "\n".join(lines)

    return edit


def check(text: str) -> None:
    try:
        plan = file.parse(text, "web1.toml")
    except Usage as error:
        assert str(error).startswith("web1.toml: ")
        return
    assert isinstance(plan, Plan)
    assert file.parse(file.dump(plan), "web1.toml") == plan


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_plan_that_was_edited_is_an_error_or_a_plan(budget: settings) -> None:
    @settings(budget, **QUIET)
    @given(st.sampled_from(GOLDEN), st.lists(edits(), min_size=1, max_size=3))
    def read(plan: str, changes: list[Edit]) -> None:
        for change in changes:
            plan = change(plan)
        check(plan)

    read()


@pytest.mark.parametrize("value", ['"' + "(" * 5000 + '"', '"a{99999999999999999999}"'])
def test_a_pattern_that_is_none_is_an_error(value: str) -> None:
    assert 'expect = "login:"' in GOLDEN[0]
    with pytest.raises(Usage, match="expect"):
        file.parse(GOLDEN[0].replace('expect = "login:"', f"expect = {value}"), "web1.toml")


@pytest.mark.parametrize("budget", BUDGETS)
def test_bytes_from_anywhere_are_a_usage_error(tmp_path: Path, budget: settings) -> None:
    path = tmp_path / "plan.toml"

    @settings(budget, **QUIET)
    @given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(lambda text: text.encode("utf-16"))))
    def read(content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(Usage):
            file.load(path)

    read()

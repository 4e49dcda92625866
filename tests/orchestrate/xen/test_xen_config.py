"""What the reader of xm and xl text accepts, and how it refuses the rest."""

import pytest

from blocksync.errors import Usage
from orchestrate.xen.config import parse
from orchestrate.xen.values import Value


def plain(value: Value) -> object:
    """The value without its places."""
    return [plain(item) for item in value.data] if isinstance(value.data, tuple) else value.data


def read(text: str) -> dict[str, object]:
    return {name: plain(value) for name, value in parse(text, "guest.cfg").values.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("memory='512'", {"memory": "512"}, id="number-as-text"),
        pytest.param(
            "disk=[\n 'phy:vg0/a,xvda2,w', # r\n 'phy:vg0/b,xvda1,w',\n]",
            {"disk": ["phy:vg0/a,xvda2,w", "phy:vg0/b,xvda1,w"]},
            id="list-over-lines-with-comment-and-last-comma",
        ),
        pytest.param(
            "disk=['a,xvda,w']\ndisk+=['b,xvdb,w']", {"disk": ["a,xvda,w", "b,xvdb,w"]}, id="list-appended"
        ),
        pytest.param("disk+=['a']", {"disk": ["a"]}, id="append-to-what-is-not-set"),
        pytest.param("name='x'\n# the end", {"name": "x"}, id="last-line-a-comment-without-newline"),
        pytest.param("name='x' # y\n", {"name": "x"}, id="comment-after-a-value"),
        pytest.param("name='#x'", {"name": "#x"}, id="no-comment-inside-text"),
        pytest.param(
            "localtime=False\nvnc=True\nvfb=None", {"localtime": False, "vnc": True, "vfb": None}, id="words"
        ),
        pytest.param("root='/dev/xvda1'+' ro'", {"root": "/dev/xvda1 ro"}, id="text-joined"),
        pytest.param("a=['x']+['y']", {"a": ["x", "y"]}, id="lists-joined"),
        pytest.param("memory=256+128", {"memory": 384}, id="numbers-added"),
        pytest.param(
            "a=0x1f; b=017; c=15; d=-3", {"a": 31, "b": 15, "c": 15, "d": -3}, id="numbers-of-strtol"
        ),
        pytest.param("n='web'\nd='/dev/vg/'+n", {"n": "web", "d": "/dev/vg/web"}, id="name-set-before"),
        pytest.param("v=7\nn='build%02d' % v", {"v": 7, "n": "build07"}, id="percent-with-a-number"),
        pytest.param("v=7\nn='%s-%x%%' % ('b', v)", {"v": 7, "n": "b-7%"}, id="percent-with-a-tuple"),
        pytest.param("a='x' + '%d' % 3 + 'y'", {"a": "x3y"}, id="percent-binds-closer-than-plus"),
        pytest.param("a='100%'", {"a": "100%"}, id="percent-inside-text"),
        pytest.param("a=('x' +\n 'y')", {"a": "xy"}, id="parentheses-join-lines"),
        pytest.param("a='x' + \\\n 'y'", {"a": "xy"}, id="backslash-joins-lines"),
        pytest.param("a='x\\\ny'", {"a": "xy"}, id="backslash-joins-lines-inside-text"),
        pytest.param("""a='''x\ny'''""", {"a": "x\ny"}, id="triple-quotes"),
        pytest.param(r"""a='it\'s\t\x41\101\\\d'""", {"a": "it's\tAA\\\\d"}, id="escapes"),
        pytest.param("a=[['x','y'],['z']]", {"a": [["x", "y"], ["z"]]}, id="nested-lists"),
        pytest.param("a=[]\nb=[\n]", {"a": [], "b": []}, id="empty-lists"),
        pytest.param("  a = 'x' ;; b = 1;", {"a": "x", "b": 1}, id="semicolons-and-indentation"),
        pytest.param("xen.shell_2='x'", {"xen.shell_2": "x"}, id="dots-in-names-as-xl-allows"),
        pytest.param("", {}, id="nothing"),
    ],
)
def test_real_notations_are_read(text: str, expected: dict[str, object]) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "place", "cause"),
    [
        pytest.param(
            "disk=['phy:a,xvda2,w' 'phy:b,xvdb,w']", "1:23", "comma between them is missing", id="comma"
        ),
        pytest.param(
            "disk=[\n 'a'\n 'b']", "3:2", "comma between them is missing", id="comma-forgotten-over-lines"
        ),
        pytest.param("a='x\nb=1", "1:3", "never closed", id="string-not-closed"),
        pytest.param("a=1\ndisk=['a',\n 'b'\nmemory=5", "2:6", "`[` is never closed", id="list-not-closed"),
        pytest.param("disk=['a',\nmemory=5", "1:6", "`[` is never closed", id="list-not-closed-after-comma"),
        pytest.param("disk=['a'", "1:6", "`[` is never closed", id="list-not-closed-at-the-end"),
        pytest.param("a=", "1:3", "found the end of the text", id="no-value"),
        pytest.param("a 5", "1:3", "`=` was expected", id="no-equals"),
        pytest.param("a=5 6", "1:5", "found `6`", id="two-values"),
        pytest.param("5=a", "1:1", "a setting (NAME = value) was expected", id="number-as-name"),
        pytest.param("a=12monkeys", "1:3", "not a whole number", id="letters-after-digits"),
        pytest.param("a=1.5", "1:3", "not a whole number", id="fraction"),
        pytest.param("a='x'+1", "1:6", "text and a number cannot be added", id="text-and-number"),
        pytest.param("a=True+1", "1:7", "a truth value and a number cannot be added", id="truth-and-number"),
        pytest.param("a=('x','y')", "1:3", "a tuple", id="tuple"),
        pytest.param("a='b%d' % vmid", "1:11", "the name `vmid` is not set", id="vmid-of-the-command-line"),
        pytest.param("a='%d' % 'x'", "1:10", "text does not fit `%d`", id="percent-d-with-text"),
        pytest.param("a='%d'+'%s%s' % 'x'", "1:15", "no value is left for `%s`", id="percent-without-value"),
        pytest.param(
            "a='%s' % ('x','y')", "1:15", "no place for this value", id="percent-with-a-value-too-many"
        ),
        pytest.param("a='%(x)s' % 1", "1:11", "the conversion `%(` is not read", id="percent-with-a-key"),
        pytest.param("a='%f' % 1", "1:8", "the conversion `%f` is not read", id="percent-f"),
        pytest.param("a=['x']\nb=[a]", "2:4", "written in place", id="list-within-a-list-by-name"),
        pytest.param("a='x' ?", "1:7", "unexpected character '?'", id="character"),
        pytest.param("a=" + "[" * 33, "1:35", "nest more than 32 deep", id="depth-33"),
        pytest.param("a=" + "([" * 100_000, "1:35", "nest more than 32 deep", id="depth-huge"),
    ],
)
def test_errors_name_the_place_and_the_cause(text: str, place: str, cause: str) -> None:
    with pytest.raises(Usage) as caught:
        parse(text, "guest.cfg")
    assert caught.value.thing == f"guest.cfg:{place}"
    assert cause in caught.value.cause
    assert caught.value.way_out


@pytest.mark.parametrize(
    "text",
    [
        "import os",
        "from os import getpid",
        "def f():\n  pass",
        "if True:\n  a=1",
        "for i in [1]: a=i",
        "print 'x'",
        "print('x')",
        "exec('x')",
        "a=os.getpid()",
        "a=os.name",
        "a=int('5')",
        "a='x'.upper()",
        "a='-'.join(['x'])",
        "b='x'\na=b[0]",
        "a='xyz'[1]",
        "a={'x': 1}",
        "a=[x for x in 'xy']",
        "a=lambda: 1",
        "a=5 if 1 else 6",
        "a=2*3",
        "a=5-3",
        "a=6/2",
        "a=5%3",
        "a=1==2",
        "a=not 1",
        "a,b='xy'",
        "a.b()",
        "a['x']=1",
        "@x\n",
        "a=`x`",
    ],
)
def test_python_is_refused_with_the_way_to_hand_in_what_xen_knows(text: str) -> None:
    with pytest.raises(Usage) as caught:
        parse(text, "guest.cfg")
    assert "configurations are read, never run" in caught.value.cause
    assert "xl list -l NAME" in caught.value.way_out
    assert "xm list -l NAME" in caught.value.way_out


def test_values_know_where_they_were_written() -> None:
    settings = parse("name='x'\ndisk = [\n  'a',\n  'b']\ndisk += ['c']\n", "guest.cfg")
    assert str(settings.values["disk"].place) == "guest.cfg:2:8"
    assert [str(item.place) for item in settings.items("disk")] == [
        "guest.cfg:3:3",
        "guest.cfg:4:3",
        "guest.cfg:5:10",
    ]


def test_the_last_assignment_wins_with_a_warning() -> None:
    settings = parse("name='x'\nname='y'", "guest.cfg")
    assert settings.text("name") == "y"
    assert settings.warnings == ("guest.cfg:2:1: `name` was set before in line 1; the last one counts",)


def test_extending_a_setting_with_itself_is_no_cause_for_a_warning() -> None:
    assert parse("a=['x']\na=a+['y']\na+=['z']", "guest.cfg").warnings == ()


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_foreign_line_ends_are_read_with_a_warning(end: str) -> None:
    settings = parse(f"name='x'{end}memory=5{end}", "guest.cfg")
    assert (settings.text("name"), settings.number("memory")) == ("x", 5)
    assert len(settings.warnings) == 1
    assert "CRLF" in settings.warnings[0]


@pytest.mark.parametrize(
    "text",
    [
        "a='xxxxxxxxxxxxxxxx'\n" + "a=a+a\n" * 60,
        "a=['x']\n" + "a+=a\n" * 60,
        "a='xxxxxxxxxxxxxxxx'\n" + "a='%s%s' % (a,a)\n" * 60,
        "a=1\n" + "a=a+a\n" * 100_000,
    ],
    ids=["text", "lists", "percent", "numbers"],
)
def test_doubling_is_stopped_before_memory_is(text: str) -> None:
    with pytest.raises(Usage, match="build more than"):
        parse(text, "guest.cfg")

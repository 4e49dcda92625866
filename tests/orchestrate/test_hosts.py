"""Scripts reach a far host as they were written."""

import subprocess

import pytest

from orchestrate.hosts import in_one_line


@pytest.mark.parametrize(
    "script",
    [
        "printf '%s\\n' \"$1\"\necho two",
        "cat <<'END'\n back\\slash \\\\n 100% $HOME\nEND",
        'for word; do\n    printf "%s|" "$word"\ndone',
    ],
)
def test_a_script_of_several_lines_travels_in_one_and_does_the_same(script):
    argv = ["sh", "-c", script, "sh", "a b", "it's", "\\n"]
    sent = in_one_line(argv)
    assert not any("\n" in word for word in sent)
    assert output(sent) == output(argv) != b""


def test_other_commands_stay_as_they_are():
    assert in_one_line(["printf", "a\nb"]) == ["printf", "a\nb"]
    assert in_one_line(["sh", "-c", "echo one"]) == ["sh", "-c", "echo one"]


def output(argv):
    return subprocess.run(argv, capture_output=True, check=True).stdout

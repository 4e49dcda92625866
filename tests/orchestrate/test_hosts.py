"""Scripts reach a far host as they were written."""

import subprocess

import pytest

from blocksync.errors import Failed
from blocksync.transports.child import ChildChannel
from orchestrate.hosts import FarHost, HostLost, in_one_line


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


class Broken:
    """A transport whose commands end as those of a link that broke."""

    def run(self, argv):
        return ChildChannel(["sh", "-c", "echo part of the answer; echo Connection closed >&2; exit 255"])

    def describe(self):
        return "ssh xenhost"


class Away(Broken):
    def run(self, argv):
        raise Failed("ssh xenhost", "nothing listens there", "start sshd on the host")


def test_an_answer_of_a_link_that_broke_is_none():
    with pytest.raises(HostLost, match="the link broke while lvs ran there"):
        FarHost(Broken()).run(["lvs"])


def test_a_host_that_is_not_reached_keeps_its_way_out():
    with pytest.raises(HostLost) as caught:
        FarHost(Away()).run(["lvs"])
    assert (caught.value.cause, caught.value.way_out) == ("nothing listens there", "start sshd on the host")


def output(argv):
    return subprocess.run(argv, capture_output=True, check=True).stdout

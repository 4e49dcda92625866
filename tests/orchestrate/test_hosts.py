"""Commands reach a far host as they were written, and what became of them comes back."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kept_channels import KeptChannels

from blocksync.errors import Failed
from blocksync.transports.child import ChildChannel
from blocksync.transports.local import Local
from orchestrate.hosts import MISSING, Done, FarHost, Host, HostLost, ThisHost


@pytest.fixture
def shells() -> KeptChannels:
    return KeptChannels()


@pytest.fixture
def host(shells: KeptChannels) -> Iterator[FarHost]:
    far = FarHost(shells)
    yield far
    far.close()


@pytest.mark.parametrize(
    "script",
    [
        "printf '%s\\n' \"$1\"\necho two",
        "cat <<'END'\n back\\slash \\\\n 100% $HOME\nEND",
        'for word; do\n    printf "%s|" "$word"\ndone',
    ],
)
def test_a_script_of_several_lines_does_what_it_says(host: FarHost, script: str) -> None:
    words = ["a b", "it's", "\\n", "%s"]
    expected = ChildChannel(["sh", "-c", script, "sh", *words])
    expected.stdin.close()
    assert host.run(["sh", "-c", script, "sh", *words]).output == expected.stdout.read() != b""


def test_output_complaint_and_status_are_told_apart(host: FarHost) -> None:
    done = host.run(["sh", "-c", "printf 'out\\0\\377'; echo complaint >&2; exit 3"])
    assert done == Done(3, b"out\0\xff", "complaint")
    assert host.run(["no-such-command"]).status == MISSING
    assert host.run(["cat"]) == Done(0, b"", "")


def test_much_output_comes_whole(host: FarHost) -> None:
    assert host.run(["head", "-c", "5000000", "/dev/zero"]).output == bytes(5_000_000)


def test_one_shell_runs_one_command_after_the_other_and_threads_have_their_own(
    host: FarHost, shells: KeptChannels
) -> None:
    assert [host.run(["echo", str(number)]).output for number in range(3)] == [b"0\n", b"1\n", b"2\n"]
    assert len(shells.channels) == 1
    with ThreadPoolExecutor(3) as pool:
        told = list(pool.map(lambda number: host.run(["sh", "-c", f"sleep 0.1; echo {number}"]), range(9)))
    assert [done.output for done in told] == [b"%d\n" % number for number in range(9)]
    assert len(shells.channels) <= 3


def test_a_command_that_goes_on_in_the_background_is_not_waited_for(host: FarHost) -> None:
    assert host.run(["sh", "-c", "sleep 30 2>/dev/null & echo begun"]).output == b"begun\n"


def test_a_link_that_broke_meanwhile_is_made_anew(host: FarHost, shells: KeptChannels) -> None:
    host.run(["true"])
    shells.cut()
    assert host.run(["echo", "there"]).output == b"there\n"


def test_a_link_that_breaks_under_a_command_is_no_answer_of_it(host: FarHost, shells: KeptChannels) -> None:
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(host.run, ["sh", "-c", "echo half; sleep 30"])
        while not shells.channels:
            pass
        shells.cut()
        with pytest.raises(HostLost, match="the link broke while sh ran there"):
            told.result(20)


def test_an_answer_that_is_none_is_an_error_with_a_name(tmp_path: Path) -> None:
    liar = tmp_path / "liar"
    liar.write_text(
        "#!/bin/sh\nread -r line; read -r line; mark=${line#*\\\\n\\' }\nmark=${mark%% *}\n"
        'printf \'%sno status\\n\\n%s\\n\' "$mark" "$mark"; read -r line\n'
    )
    liar.chmod(0o755)

    class Liar(KeptChannels):
        def run(self, argv: Sequence[str]) -> ChildChannel:
            return super().run([str(liar)])

    far = FarHost(Liar())
    with pytest.raises(Failed, match="answers 'no status' for a status"):
        far.run(["true"])


@pytest.mark.parametrize(
    "host", [FarHost(Local(env={"PATH": "/usr/bin:/bin"})), ThisHost()], ids=["far", "this"]
)
def test_root_s_programs_are_found_with_the_path_of_cron(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    # Twice in the same shell there.
    assert [host.run(["sh", "-c", "blkid -V; echo $PATH"]).status for _ in range(2)] == [0, 0]
    assert host.run(["sh", "-c", "echo $PATH"]).output.count(b":/sbin") == 1
    if isinstance(host, FarHost):
        host.close()

"""Commands reach a far host as they were written, and what became of them comes back."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kept_channels import KeptChannels

import bounded
from blocksync.errors import Failed, Usage
from blocksync.hosts import host as hosts
from blocksync.hosts.host import MISSING, Completed, FarHost, Host, HostLost, ThisHost, TooMuch
from blocksync.transports import child
from blocksync.transports.child import ChildChannel
from local_transport import Local
from patience import wait_for


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
    assert done == Completed(3, b"out\0\xff", "complaint")
    assert host.run(["no-such-command"]).status == MISSING
    assert host.run(["cat"]) == Completed(0, b"", "")


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


@pytest.fixture(params=["here", "far"])
def either(request: pytest.FixtureRequest) -> Iterator[ThisHost | FarHost]:
    if request.param == "here":
        yield ThisHost()
        return
    far = FarHost(KeptChannels())
    yield far
    far.close()


def test_output_is_bounded_while_it_comes(either: ThisHost | FarHost) -> None:
    with pytest.raises(TooMuch, match="printed more than 1000000 bytes"):
        either.run(["yes"], most=1_000_000)
    assert len(either.run(["head", "-c", "1000000", "/dev/zero"], most=1_000_000).output) == 1_000_000
    with pytest.raises(TooMuch):
        either.run(["head", "-c", "1000001", "/dev/zero"], most=1_000_000)


def test_endless_output_takes_no_memory() -> None:
    script = """
from blocksync.hosts.host import ThisHost, TooMuch
try:
    ThisHost().run(["cat", "/dev/zero"])
except TooMuch as error:
    print(error)
"""
    assert "printed more than 67108864 bytes" in bounded.run(script, memory=1 << 30)


def test_of_complaints_only_the_end_is_kept() -> None:
    done = ThisHost().run(["sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo end >&2"])
    assert done.complaint.endswith("; end")
    assert len(done.complaint) < 1000


def test_a_complaint_is_one_line_that_no_terminal_obeys(either: ThisHost | FarHost) -> None:
    said = r"printf 'a\033]0;PWNED\007\n  hint: rm\r\302\233\342\200\256\377b\n' >&2; exit 1"
    complaint = either.run(["sh", "-c", said]).complaint
    assert complaint.startswith("a?]0;PWNED?; ")
    assert complaint.isprintable()


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_command_that_is_given_up_ends_with_all_that_it_started(
    tmp_path: Path, stubborn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_GRACE_SECONDS", 0.2)
    trap = "trap '' TERM;" if stubborn else ""
    script = f"{trap} (sleep 300; true) & echo $! >{tmp_path}/pid; yes"
    with pytest.raises(TooMuch):
        ThisHost().run(["sh", "-c", script], most=1000)
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not Path(f"/proc/{pid}/stat").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text())


def test_a_command_that_is_given_up_puts_back_what_it_holds(tmp_path: Path) -> None:
    script = f"trap 'echo released >{tmp_path}/said; exit' TERM; yes & wait"
    with pytest.raises(TooMuch):
        ThisHost().run(["sh", "-c", script], most=1000)
    assert (tmp_path / "said").read_text() == "released\n"


def test_time_is_bounded(either: ThisHost | FarHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_SECONDS", 0.3)
    with pytest.raises(Failed, match=r"did not end within 0\.3 s"):
        either.run(["sh", "-c", "while :; do echo .; sleep 0.1; done"])
    with pytest.raises(Failed, match=r"did not end within 0\.3 s"):
        ThisHost().run(["sh", "-c", "exec >&-; sleep 300"])


def test_tools_speak_english_whatever_the_operator_speaks(
    either: ThisHost | FarHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert either.run(["sh", "-c", "echo $LC_ALL"]).output == b"C\n"


def test_an_argument_that_no_command_can_have_is_an_error(either: ThisHost | FarHost) -> None:
    with pytest.raises((Failed, Usage), match=r"null|NUL"):
        either.run(["cat", "a\0b"])
    assert either.run(["printf", "%s", "b\udce4r"]).output == b"b\xe4r"

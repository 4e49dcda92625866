"""Runs `blocksync` commands in forked processes, with calls that fail, come short, or are the last."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

# Small data in many pieces: what takes gigabytes in earnest happens within a mebibyte. A segment is as small
# as it can be with runs of zeros in it that are long enough to be punched.
SMALL = {
    "blocksync.passes.SEGMENT": 131072,
    "blocksync.passes.DIRECT_SEGMENT": 131072,
    "blocksync.passes.FLUSH_EVERY": 131072,
    "blocksync.passes.TICK": 0.001,
    "blocksync.digests.digest_file.CHUNK_DIGESTS": 16,
}


class Action(IntEnum):
    """What becomes of a call; the numbers are the interposer's."""

    FAIL = 1
    SHORT = 2
    KILL_BEFORE = 3
    KILL_TORN = 4
    KILL_AFTER = 5
    SIGNAL = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """From the `nth` call of this name on a file of this role, `times` times. "*" is any.

    `value` is the errno of FAIL, the number of the SIGNAL, or the bytes that a SHORT or torn call moves
    (0: half of them).
    """

    action: Action
    call: str = "*"
    role: str = "*"
    nth: int = 1
    times: int = 1
    value: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: exit code (negative: the signal that killed it), output, how long it ran."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def report(self) -> dict[str, Any]:
        """What `--json` printed."""
        return dict(json.loads(self.out))


def build_interposer(folder: Path) -> Path:
    """Compile interpose.c into `folder`; the library."""
    library = folder / "interpose.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    subprocess.run(["gcc", *flags, "-o", library, HERE / "interpose.c", "-ldl"], check=True)
    return library


class Engine:
    """The forkserver, from the side of the tests."""

    def __init__(self, interposer: Path) -> None:
        preload = " ".join(filter(None, (os.environ.get("LD_PRELOAD"), str(interposer))))
        self._server = subprocess.Popen(
            [sys.executable, HERE / "forkserver.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "LD_PRELOAD": preload},
            text=True,
        )

    def run(
        self,
        *argv: object,
        watch: Sequence[tuple[str, str]] = (),
        rule: Rule | None = None,
        log: Path | None = None,
        kill_after: float | None = None,
        constants: dict[str, object] | None = None,
        stamp: str = "",
    ) -> Ended:
        """Run `blocksync ARGV` to its end. `watch` gives paths their roles, one letter each: the first
        match wins, and a path that ends in "/" stands for what is below it. `stamp` names what stands in for
        the target's stamp (see forkserver.py).
        """
        job = {
            "argv": [str(word) for word in argv],
            "watch": list(watch),
            "rule": rule and (rule.call, rule.role, rule.nth, rule.times, int(rule.action), rule.value),
            "log": log and str(log),
            "kill_after": kill_after,
            "constants": SMALL if constants is None else constants,
            "stamp": stamp,
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(job), file=self._server.stdin, flush=True)
        answer = self._server.stdout.readline()
        if not answer:
            raise RuntimeError(f"the forkserver ended with {self._server.wait()}")
        return Ended(**json.loads(answer))

    def close(self) -> None:
        self._server.communicate()

"""A process that has the engine imported and forks one `blocksync` command for each line on its input.

Started with the interposer preloaded (see forked.py). Starting an interpreter costs ten times what a small
pass costs; a fork costs next to nothing, and is a process of its own all the same: it is killed, signalled
and leaves its exit code like any other. One JSON object in, one JSON object out, a line each.
"""

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
import time
import traceback
from typing import Any, NoReturn

from blocksync import _copy
from blocksync.commands import entry
from blocksync.devices.device import Opened
from blocksync.digests import digest_file, history  # noqa: F401

Job = dict[str, Any]


def serve() -> None:
    interpose = ctypes.CDLL(None)
    char, long = ctypes.c_char, ctypes.c_long
    interpose.interpose_watch.argtypes = [char, ctypes.c_char_p]
    interpose.interpose_rule.argtypes = [ctypes.c_char_p, char, long, long, ctypes.c_int, long]
    for line in sys.stdin:
        print(json.dumps(_carry_out(json.loads(line), interpose)), flush=True)


def _carry_out(job: Job, interpose: ctypes.CDLL) -> Job:
    streams = [os.memfd_create(name) for name in ("out", "err")]
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(job, interpose, streams)
    if (delay := job["kill_after"]) is not None:
        time.sleep(delay)
        # Not waited for yet, so the number is still this child's.
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seconds = time.monotonic() - started
    out, err = (_take(fd) for fd in streams)
    return {"code": code, "out": out, "err": err, "seconds": seconds}


def _take(fd: int) -> str:
    with open(fd, "rb") as stream:
        stream.seek(0)
        return stream.read().decode(errors="surrogateescape")


def _become(job: Job, interpose: ctypes.CDLL, streams: list[int]) -> NoReturn:
    """Be the command: its streams, its arguments, what is to go wrong, its exit code."""
    status = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, fd in enumerate((nothing, *streams)):
            os.dup2(fd, number)
        for name, value in job["constants"].items():
            _set(name, value)
        if job["stamp"]:
            history.stamp = STAMPS[job["stamp"]]
        _arm(job, interpose)
        sys.argv = ["blocksync", *job["argv"]]
        status = _exit_code_of_main()
    except BaseException:  # what the interpreter itself would do last
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _exit_code_of_main() -> int:
    try:
        entry.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _unmoved(opened: Opened) -> str:
    os.fsync(opened.fd)
    return "unmoved"


def _by_content(opened: Opened) -> str:
    os.fsync(opened.fd)
    interpose = ctypes.CDLL(None)
    interpose.interpose_pause(1)
    content = opened.device.path.read_bytes()
    interpose.interpose_pause(0)
    return f"{len(content)}/{_copy.xxh3_128(content).hex()}"


# What stands in for the stamp that tells whether a target was written to: time moves when a test puts a file
# back. Under "unmoved" no write is ever seen, so that digest files are believed that ought not to be: the
# order of flushes alone has to be right. Under "content" a target that is put back has its stamp back.
STAMPS = {"unmoved": _unmoved, "content": _by_content}


def _set(name: str, value: object) -> None:
    module_name, _, constant = name.rpartition(".")
    module = importlib.import_module(module_name)
    if not hasattr(module, constant):
        raise LookupError(f"{name} is gone: the proofs have to be told what took its place")
    setattr(module, constant, value)


def _arm(job: Job, interpose: ctypes.CDLL) -> None:
    for role, path in job["watch"]:
        interpose.interpose_watch(role.encode(), os.fsencode(path))
    if job["log"]:
        interpose.interpose_log(os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    if rule := job["rule"]:
        call, role, nth, times, action, value = rule
        interpose.interpose_rule(call.encode(), role.encode(), nth, times, action, value)


if __name__ == "__main__":
    serve()

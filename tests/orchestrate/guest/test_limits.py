"""Programs run with limits, as the kernel tells of them."""

from blocksync.hosts.host import MISSING, ThisHost
from orchestrate.guest.files.limits import limited


def test_a_program_that_reads_a_guest_s_bytes_may_do_little():
    told = limited(ThisHost()).run(["cat", "/proc/self/limits", "/proc/self/status"]).output.decode()
    limits = {line[:26].strip(): line[26:].split()[:2] for line in told.splitlines()}
    assert limits["Max address space"] == [str(2 << 30)] * 2
    assert limits["Max file size"] == ["0", "0"]
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max cpu time"][0] == "170"
    assert "NoNewPrivs:\t1\n" in told


def test_it_can_take_no_more_memory_than_that_and_write_no_file(tmp_path):
    run = limited(ThisHost()).run
    assert run(["head", "-c", "8M", "/dev/zero"]).output == bytes(8 << 20)
    assert run(["sh", "-c", f"echo x > {tmp_path}/file"]).status != 0
    assert (tmp_path / "file").read_bytes() == b""
    assert run(["dd", "if=/dev/zero", "of=/dev/null", "bs=4G", "count=1"]).status != 0


def test_a_program_that_is_not_there_is_still_missing():
    assert limited(ThisHost()).run(["no-such-program"]).status == MISSING

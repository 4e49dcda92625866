import shutil
import subprocess
from pathlib import Path

import pytest

from blocksync.errors import Failed, Usage
from orchestrate.kvm import accel
from orchestrate.kvm.accel import choose, domain_type, kvm_verdict, run_probe

pytestmark = pytest.mark.boots

SOURCE = Path(accel.__file__).with_name("probe.S")
needs_qemu = pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="needs qemu-system-x86")


@pytest.fixture(autouse=True)
def not_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(accel.VARIABLE, raising=False)


@pytest.mark.skipif(not (shutil.which("as") and shutil.which("ld")), reason="needs binutils")
def test_the_probe_is_its_source_assembled(tmp_path: Path) -> None:
    built, image = tmp_path / "probe.o", tmp_path / "probe.img"
    subprocess.run(["as", "--64", "-o", built, SOURCE], check=True)
    link = ["ld", "-m", "elf_x86_64", "-Ttext", "0x7c00", "--oformat", "binary", "-o", image, built]
    subprocess.run(link, check=True)
    assert image.read_bytes().ljust(510, b"\0") + b"\x55\xaa" == accel.PROBE_SECTOR


@needs_qemu
def test_the_probe_runs_to_its_end_under_emulation() -> None:
    assert run_probe("tcg", seconds=20).works


@needs_qemu
def test_a_probe_without_an_answer_in_time_says_so() -> None:
    verdict = run_probe("tcg", seconds=0.001)
    assert not verdict.works
    assert "no answer within 0.001 s" in verdict.reason


@needs_qemu
def test_auto_takes_kvm_only_where_the_probe_ran() -> None:
    verdict = kvm_verdict()
    assert choose("auto") == ("kvm" if verdict.works else "tcg")
    assert verdict.reason


def test_a_missing_kvm_device_is_no_kvm(tmp_path: Path) -> None:
    verdict = kvm_verdict(tmp_path / "kvm")
    assert not verdict.works
    assert str(tmp_path / "kvm") in verdict.reason


@pytest.mark.parametrize("word", ["kvm", "tcg"])
def test_the_variable_wins_over_what_is_asked(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(accel.VARIABLE, word)
    assert [choose("auto"), choose("kvm"), choose("tcg")] == [word] * 3


def test_other_words_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Usage, match="'xen'"):
        choose("xen")
    monkeypatch.setenv(accel.VARIABLE, "fast")
    with pytest.raises(Usage, match=accel.VARIABLE):
        choose("tcg")


def test_a_host_without_an_emulator_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("orchestrate.kvm.qemu._EMULATORS", ("qemu-system-x86_64",))
    with pytest.raises(Failed, match="apt-get install qemu-system-x86"):
        run_probe("tcg")


def test_the_domain_type_follows_the_accelerator() -> None:
    assert (domain_type("kvm"), domain_type("tcg")) == ("kvm", "qemu")

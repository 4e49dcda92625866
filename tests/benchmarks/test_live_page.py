"""The bench of the last pass: each size is measured, and the verdict is that of the figures."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_size_is_measured_and_the_verdict_is_that_of_the_figures(tmp_path: Path) -> None:
    page, scratch = tmp_path / "live.md", tmp_path / "images"
    scratch.mkdir()
    options = ["--rounds=2", "--sizes", "1", "2", f"--folder={scratch}", f"--output={page}"]
    argv = [sys.executable, "-m", "benchmarks.live", *options]
    subprocess.run(argv, check=True, capture_output=True, cwd=ROOT)
    text = page.read_text()
    rows = re.findall(r"^\| (\d+) GiB \| ([\d.]+) s \|", text, re.MULTILINE)
    assert [gib for gib, _ in rows] == ["1", "2"]
    medians = [float(seconds) for _, seconds in rows]
    told = re.search(r"within ([\d.]+) times: (met|NOT met)", text)
    assert told is not None
    assert abs(float(told[1]) - max(medians) / min(medians)) < 0.02
    assert (told[2] == "met") == (float(told[1]) <= 1.3)
    assert not list(scratch.iterdir())

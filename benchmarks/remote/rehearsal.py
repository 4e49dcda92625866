"""One run of ours before the measured ones: it makes the digest files, and shows that all is as asked."""

import subprocess
from collections.abc import Iterable

from benchmarks.passes.contenders import Contender

# What the first pass over a target says of the digest file that is not there yet.
_EXPECTED = "digest file"


def rehearse(contenders: Iterable[Contender]) -> None:
    """Run each once. Raises RuntimeError for one that fails, and for one that tells that it does something
    else than was asked, such as another transport."""
    for contender in contenders:
        done = subprocess.run(contender.argv, capture_output=True, text=True, check=False)
        said = [line for line in done.stderr.splitlines() if _EXPECTED not in line]
        if done.returncode != 0 or said:
            raise RuntimeError(f"{contender.name}: exit status {done.returncode}: {' '.join(said)}")

"""Steps are told as they begin, go on, end and break."""

import pytest

from blocksync.progress import Tell
from orchestrate.job.stopwatch import Step, Stopwatch


def test_who_shows_steps_is_told_of_each_and_of_what_it_is_at():
    said: list[object] = []

    def tell(text: str, of: float | None = None) -> None:
        said.append((text, of))

    told: Tell = tell
    watch = Stopwatch(said.append, lambda step: said.append(step.name), said.append, told)
    with watch.step("fix-ups"):
        watch.tell("writing", 30)
    with pytest.raises(KeyboardInterrupt), watch.step("boot"):
        raise KeyboardInterrupt
    assert said == ["fix-ups", ("writing", 30), "fix-ups", "boot", "boot"]
    # What broke is no step that was made.
    assert [type(step) for step in watch.steps] == [Step]

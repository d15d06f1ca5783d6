"""Which records a model is measured by, and what becomes of a measurement that fails."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slm_quantizer import evaluate as quantizer
from slm_trainer import evaluate as trainer
from slm_trainer.evaluate import choose
from slm_trainer.label.answers import stopped
from slmkit.data import Example
from slmkit.run import RunFailed
from slmops.contract import Reason


def records(count: int, answer: str | None = "a") -> list[Example]:
    return [Example(({"role": "user", "content": str(number)},), answer) for number in range(count)]


def test_the_same_records_are_chosen_for_the_same_seed() -> None:
    chosen = choose(records(100), 10, 42)
    assert len({repr(example) for example in chosen}) == 10
    assert choose(records(100), 10, 42) == chosen
    assert choose(records(100), 10, 43) != chosen


def test_records_without_an_answer_measure_nothing() -> None:
    assert choose(records(5, None), 10, 42) == []
    mixed = records(5, None) + records(3)
    assert choose(mixed, 10, 42) == records(3)


def test_no_more_records_than_there_are() -> None:
    assert choose(records(5), 5, 42) == records(5)
    assert choose(records(5), 500, 42) == records(5)


def in_trainer(folder: Path, work: Path) -> object:
    return trainer.measure(folder, records(1), 8, work)


def in_quantizer(folder: Path, work: Path) -> object:
    return quantizer.measure(folder, ["p"], records(1), 8, work)


Measure = Callable[[Path, Path], object]


@pytest.mark.parametrize(
    ("measure", "reason"), [(in_trainer, Reason.INTERNAL_ERROR), (in_quantizer, Reason.VERIFICATION_FAILED)]
)
def test_a_measurement_that_fails_says_why_and_leaves_nothing(tmp_path: Path, measure: Measure, reason: Reason) -> None:
    with pytest.raises(RunFailed) as failed:
        measure(tmp_path / "missing", tmp_path)
    assert failed.value.reason is reason
    words = failed.value.message.partition(": ")[2]
    assert "Error" in words or "RunFailed" in words, "the last line of what the other process said"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("measure", [in_trainer, in_quantizer])
def test_a_measurement_that_is_killed_ran_out_of_memory(
    tmp_path: Path, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(RunFailed) as failed:
        measure(tmp_path / "missing", tmp_path)
    assert failed.value.reason is Reason.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("stops", "out"), [((), "a b c"), (("b",), "a "), (("c", "b"), "a "), (("x",), "a b c"), (("a",), "")]
)
def test_a_local_teachers_answer_ends_before_the_first_stop_text(stops: tuple[str, ...], out: str) -> None:
    assert stopped("a b c", stops) == out

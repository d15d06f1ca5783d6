"""How far a whole run is, and how long it still takes: stages that are known beforehand, each with its weight."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.course import Course
from slmkit.page import metrics
from slmkit.run import Context

STAGES = {"Fetching": 10.0, "Converting ONNX": 30.0, "Publishing": 10.0}


def test_a_stage_counts_by_its_weight_and_by_what_is_done_of_it() -> None:
    course = Course(STAGES)
    assert course.place("Fetching", 0.5, 5.0) == (1, 3, 0.1, pytest.approx(45.0))
    assert course.place("Converting ONNX", 0.0, 10.0) == (2, 3, 0.2, pytest.approx(40.0))
    assert course.place("Converting ONNX", 0.5, 20.0) == (2, 3, 0.5, pytest.approx(20.0))
    assert course.place("Publishing", 1.0, 50.0) == (3, 3, 1.0, pytest.approx(0.0))


def test_nothing_is_reckoned_from_the_first_moments() -> None:
    assert Course(STAGES).place("Fetching", 0.01, 1.0) == (1, 3, pytest.approx(0.002), None)


def test_of_a_stage_that_nobody_spoke_of_nothing_is_known() -> None:
    assert Course(STAGES).place("Searching", 0.5, 1.0) is None


@given(st.lists(st.tuples(st.sampled_from(list(STAGES)), st.floats(0, 3)), max_size=20))
def test_it_never_goes_back_and_is_never_more_than_all(steps: list[tuple[str, float]]) -> None:
    course = Course(STAGES)
    shares = [place.share for stage, done in steps if (place := course.place(stage, done, 1.0))]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)


def test_a_run_tells_where_it_is_on_its_course() -> None:
    now = 0.0
    context = Context(clock=lambda: now)
    context.stage("Fetching")
    assert context.progress.job_share is None, "nobody has told its stages"
    context.course = Course(STAGES)
    context.stage("Fetching")
    context.expect(100)
    now = 10.0
    context.advance(50)
    found = context.progress
    assert (found.part, found.parts, found.job_share, found.job_eta_seconds) == (1, 3, 0.1, pytest.approx(90.0))
    context.expect(300)
    assert context.progress.job_share == 0.1, "a stage that grows takes nothing back"
    context.stage("Converting ONNX", of=4)
    context.step(2)
    found = context.progress
    assert (found.part, found.unit, found.step, found.of, found.job_share) == (2, "Layers", 2, 4, 0.5)
    assert 'slmops_run_job_share{stage="Converting ONNX",unit="Layers"} 0.5' in metrics(found)

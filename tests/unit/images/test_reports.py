"""What a pod with several processes reports: the reason of the one that had one."""

from pathlib import Path

import pytest

from slm_trainer import reports
from slm_trainer.reports import verdict
from slmops.contract import Reason, Report

LOST = Report(outcome="Failed", reason=Reason.TERMINATED, message="another pod of the group was lost")
FULL = Report(outcome="Failed", reason=Reason.OUT_OF_MEMORY, message="OutOfMemoryError: CUDA out of memory")
BAD = Report(outcome="Failed", reason=Reason.INVALID_DATA, message="line 3")


@pytest.mark.parametrize(
    ("codes", "left", "report", "code"),
    [
        ([143, 1], [FULL, LOST], FULL, 1),
        ([143], [LOST, FULL], FULL, 1),  # the one that failed has not ended yet when the other one has
        ([143, 3], [LOST, BAD], BAD, 3),
        ([143, 143], [LOST, LOST], LOST, 143),
        ([143], [], None, 143),
        ([-15], [], None, 143),
        ([3], [], None, 3),
        ([1, 3], [], None, 1),
    ],
)
def test_a_reason_of_ones_own_goes_before_an_interruption(
    codes: list[int], left: list[Report], report: Report | None, code: int
) -> None:
    assert verdict(codes, left) == (report, code)


@pytest.mark.parametrize(
    ("signal", "reason", "words"),
    [
        (9, Reason.OUT_OF_MEMORY, "killed"),
        (6, Reason.INTERNAL_ERROR, "Aborted"),
        (11, Reason.INTERNAL_ERROR, "Segmentation fault"),
        (7, Reason.INTERNAL_ERROR, "Bus error"),
    ],
)
def test_only_a_kill_is_a_lack_of_memory(signal: int, reason: Reason, words: str) -> None:
    report, code = verdict([143, -signal], [LOST])
    assert report is not None
    assert (report.reason, code) == (reason, 128 + signal)
    assert words in report.message


def test_a_process_that_is_aborted_over_the_failure_of_another_one_does_not_hide_it() -> None:
    assert verdict([-6, 1], [FULL]) == (FULL, 1)


def test_reports_are_read_in_the_order_in_which_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path))
    assert reports.left(3) == []
    for local, report in ((2, BAD), (0, LOST)):
        reports.place(local).write_text(report.model_dump_json())
    reports.place(1).write_text("half a rep")
    assert reports.left(3) == [BAD, LOST]
    assert reports.first() == LOST
    reports.clear(3)
    assert list(tmp_path.iterdir()) == []
    assert reports.first() is None

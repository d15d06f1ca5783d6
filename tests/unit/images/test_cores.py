"""How many threads a run has, by fake control groups."""

import os
from pathlib import Path

import pytest

from slmkit.cores import cores

HAS = {0, 1, 2, 3}


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: HAS)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("max 100000", 4),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("800000 100000", 4),
        ("50000 50000", 1),
        ("", 4),
        ("0 0", 4),
    ],
)
def test_version_2(tmp_path: Path, said: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{said}\n")
    assert cores(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 4), ("100000", 1), ("250000", 3)])
def test_version_1(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores(tmp_path) == expected


def test_without_a_group_affinity_counts(tmp_path: Path) -> None:
    assert cores(tmp_path) == 4

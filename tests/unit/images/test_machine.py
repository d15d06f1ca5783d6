"""What a node tells of itself while it is measured: load, stolen time, heat; and that nothing of it can fail a run."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from slm_bench.machine import Moment, disturbances, load, moment
from slmops.contract import Disturbance

CPUS = "cpu0 1 0 1 1 0 0 0 0 0 0\ncpu1 1 0 1 1 0 0 0 0 0 0\nintr 5 5\nctxt 7\n"
CALM = Moment(busy=0, stolen=0, throttled=0)


def write(root: Path, path: str, content: str | bytes) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def machine(root: Path, cpu: str = "100 20 50 1000 200 3 7 20 90 5", loadavg: str = "4.80 1.00 0.50 2/345 6789",
            throttled: tuple[object, ...] = (5, 5)) -> Path:  # fmt: skip
    """A node's files."""
    write(root, "proc/stat", f"cpu  {cpu}\n{CPUS}")
    write(root, "proc/loadavg", f"{loadavg}\n")
    for number, count in enumerate(throttled):
        write(root, f"sys/devices/system/cpu/cpu{number}/thermal_throttle/core_throttle_count", f"{count}\n")
    return root


def test_a_node_is_read(tmp_path: Path) -> None:
    found = moment(machine(tmp_path))
    assert found == Moment(busy=100 + 20 + 50 + 3 + 7 + 20, stolen=20, throttled=10)
    assert load(tmp_path) == 2.4, "of two CPUs"


def test_the_machine_of_the_test_is_read() -> None:
    """Whatever it is: Linux has these files, a sensor it may have."""
    found = moment()
    assert found.busy is not None
    assert found.busy > 0
    assert load() is not None


@pytest.mark.parametrize(
    ("after", "load", "expected"),
    [
        (CALM, None, ()),
        (CALM, 2.9, ()),
        (CALM, 3.04, ("load of 3.0 per CPU before it began",)),
        (Moment(busy=1000, stolen=49), None, ()),
        (Moment(busy=1000, stolen=120), None, ("12 % of the CPUs' time was stolen",)),
        (Moment(busy=10, stolen=900), None, ("100 % of the CPUs' time was stolen",)),
        (Moment(busy=0, stolen=5), None, ()),
        (Moment(throttled=1), None, ("1 thermal throttling event",)),
        (Moment(throttled=3), None, ("3 thermal throttling events",)),
        (Moment(busy=100, stolen=50, throttled=7), 9.0,
         ("load of 9.0 per CPU before it began", "50 % of the CPUs' time was stolen", "7 thermal throttling events")),
    ],
)  # fmt: skip
def test_what_disturbs_is_told_in_words(after: Moment, load: float | None, expected: tuple[str, ...]) -> None:
    assert disturbances(CALM, after, load) == expected


def test_only_what_happened_meanwhile_counts() -> None:
    long_up = Moment(busy=10**9, stolen=10**8, throttled=10**6)
    assert disturbances(long_up, long_up, None) == ()
    back = Moment(busy=10**8, stolen=10**7, throttled=10**5)
    assert disturbances(long_up, back, None) == (), "a CPU was taken out"
    for unknown in ((CALM, Moment()), (Moment(), long_up), (Moment(), Moment())):
        assert disturbances(*unknown, None) == ()


ODD: dict[str, Callable[[Path], object]] = {
    "nothing": lambda root: None,
    "empty": lambda root: machine(root, "", "", ("",)),
    "words": lambda root: machine(root, "a b c d e f g h", "high", ("hot",)),
    "few columns": lambda root: machine(root, "1 2 3 4", "", ()),
    "negative": lambda root: machine(root, "-1 -2 -3 -4 -5 -6 -7 -8", "-1", ("-1",)),
    "huge": lambda root: machine(root, " ".join(["9" * 5000] * 10), "9" * 5000, ("9" * 5000,)),
    "no number": lambda root: machine(root, "1 1 1 1 1 1 1 nan", "nan", ("nan",)),
    "endless": lambda root: machine(root, "1 1 1 1 1 1 1 inf", "inf", ("inf",)),
    "other digits": lambda root: machine(root, " ".join("²" * 8), "", ("²",)),
    "bytes": lambda root: [write(root, path, b"\xff\xfe\x00") for path in ("proc/stat", "proc/loadavg")],
    "folders": lambda root: [(root / path).mkdir(parents=True) for path in ("proc/stat", "proc/loadavg")],
}


@pytest.mark.parametrize("odd", ODD)
def test_what_is_not_there_or_odd_is_not_known(odd: str, tmp_path: Path) -> None:
    ODD[odd](tmp_path)
    assert moment(tmp_path) == Moment()
    assert load(tmp_path) is None


@settings(derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 10**15 - 1), min_size=8, max_size=8), st.floats(), st.integers(0, 10**15 - 1))
def test_whatever_is_read_has_words_that_a_report_takes(
    tmp_path: Path, ticks: list[int], mean: float, throttled: int
) -> None:
    root = machine(tmp_path, " ".join(map(str, ticks)), str(mean), (throttled,))
    for said in disturbances(CALM, moment(root), load(root)):
        TypeAdapter(Disturbance).validate_python(said)

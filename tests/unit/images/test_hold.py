"""Two pods on one volume: the second waits for the first."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from slmkit import hold as holding
from slmkit.hold import hold
from slmkit.run import Context, RunFailed

OTHER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(holding, "PAUSE", 0.01)
    made = Context(tmp_path)
    made.state.mkdir()
    return made


@pytest.fixture
def other(context: Context) -> "Iterator[subprocess.Popen[str]]":
    command = [sys.executable, "-c", OTHER, str(context.state / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_same_process_may_ask_again(context: Context) -> None:
    hold(context)
    hold(context, patience=0)


def test_a_pod_that_does_not_let_go_is_named(context: Context, other: "subprocess.Popen[str]") -> None:
    with pytest.raises(RunFailed, match="another pod has been writing to the volume"):
        hold(context, patience=0.05)


def test_it_is_had_as_soon_as_the_other_has_ended_also_by_a_kill(
    context: Context, other: "subprocess.Popen[str]"
) -> None:
    threading.Timer(0.1, other.kill).start()
    hold(context, patience=30)
    assert other.wait(5) != 0


def test_a_pod_that_is_told_to_stop_waits_no_longer(context: Context, other: "subprocess.Popen[str]") -> None:
    context.stopping.set()
    with pytest.raises(RunFailed, match="told to stop"):
        hold(context, patience=30)

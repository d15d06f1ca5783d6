"""What a run is told and asked while it goes on: its progress, whether it has to stop, and where its state lies."""

from collections.abc import Callable
from pathlib import Path

import pytest

from slmkit.registry import Registry
from slmkit.run import PERMANENT, Context, RunFailed
from slmops.contract import MODEL_TYPE, Reason, Sink
from tests.unit.images.fakeregistry import FakeRegistry


def test_progress_knows_how_long_it_will_take() -> None:
    now = 100.0
    context = Context(clock=lambda: now)
    assert context.progress.stage == "Starting"
    context.stage("Training", of=100)
    assert context.progress.eta_seconds is None
    now = 110.0
    context.step(20, loss=0.5, tokens_per_second=1234.0)
    found = context.progress
    assert (found.step, found.of, found.loss, found.tokens_per_second) == (20, 100, 0.5, 1234.0)
    assert found.eta_seconds == 40.0
    context.step(100)
    assert context.progress.eta_seconds == 0
    context.step(101)
    assert context.progress.eta_seconds is None, "more steps than there are: nobody knows"
    context.stage("Publishing")
    assert (context.progress.step, context.progress.of, context.progress.loss) == (0, 0, None)
    context.step(0)
    assert context.progress.eta_seconds is None


def test_a_run_that_is_told_to_stop_stops_at_the_next_check() -> None:
    context = Context()
    context.check()
    context.stopping.set()
    with pytest.raises(RunFailed) as failed:
        context.check()
    assert failed.value.reason is Reason.TERMINATED
    assert failed.value.reason not in PERMANENT


@pytest.mark.parametrize(
    "act",
    [
        lambda context: context.stage("Publishing"),
        lambda context: context.advance(1 << 20),
        lambda context: list(context.going(["a record"])),
    ],
    ids=["a stage", "bytes", "records"],
)
def test_what_nobody_has_to_keep_is_left_at_once(act: Callable[[Context], object]) -> None:
    context = Context()
    act(context)
    context.stopping.set()
    with pytest.raises(RunFailed) as failed:
        act(context)
    assert failed.value.reason is Reason.TERMINATED


def test_a_step_is_counted_also_while_the_pod_is_taken_away() -> None:
    """A training keeps it, and whoever labels waits for the answers that are on their way."""
    context = Context()
    context.stage("Labelling", of=9)
    context.stopping.set()
    context.step(5)
    assert context.progress.step == 5


def test_a_push_that_is_told_to_stop_stops(registry: FakeRegistry, tmp_path: Path) -> None:
    context = Context()
    client = Registry(registry.settings, meter=context)
    (tmp_path / "weights").write_bytes(b"x" * 3_000_000)
    context.stage("Publishing")
    context.stopping.set()
    with pytest.raises(RunFailed) as failed:
        client.push_artifact(
            Sink(repository=f"{registry.host}/slm/m"), {"weights": tmp_path / "weights"}, MODEL_TYPE, {}
        )
    assert failed.value.reason is Reason.TERMINATED


# --- what outlives the pod


def test_state_is_kept_on_the_volume_where_there_is_one(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    assert Context(work=tmp_path / "work", state=volume).state == volume


def test_without_a_volume_state_lies_with_the_pods_own_work(tmp_path: Path) -> None:
    assert Context(work=tmp_path / "work", state=tmp_path / "none").state == tmp_path / "work" / "state"


def test_a_volume_that_cannot_be_written_to_is_told_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert Context(work=tmp_path / "work", state=tmp_path).state == tmp_path / "work" / "state"
    assert "cannot be written to" in caplog.text

"""What a run says of itself while it runs: stages with their units, times, bytes, and the pages that show it."""

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from slmkit.page import metrics, serve
from slmkit.registry import Registry
from slmkit.run import Context
from slmops.contract import MODEL_TYPE, Progress, Sink, Source
from slmops.contract import Registry as Access
from tests.unit.images.fakeregistry import FakeRegistry


class Clock:
    """A time that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("stage", "unit"),
    [("Fetching", "Bytes"), ("Publishing", "Bytes"), ("Evaluating baseline", "Samples"), ("Labelling", "Records"),
     ("Training", "Steps"), ("Converting GPTQ", "Layers")],
)  # fmt: skip
def test_each_stage_counts_in_its_unit(stage: str, unit: str) -> None:
    context = Context()
    context.stage(stage, of=3)
    assert (context.progress.stage, context.progress.unit, context.progress.of) == (stage, unit, 3)


def test_the_time_that_is_left_is_reckoned_from_what_this_attempt_has_made() -> None:
    clock = Clock()
    context = Context(clock=clock)
    context.stage("Training", of=100, done=60)
    clock.now = 10.0
    context.step(80, loss=1.5, tokens_per_second=20.0)
    assert context.progress.eta_seconds == pytest.approx(10.0), "twenty steps in ten seconds, twenty are left"
    context.stage("Evaluating")
    assert (context.progress.step, context.progress.loss, context.progress.eta_seconds) == (0, None, None)


def test_the_first_training_step_is_remembered_and_no_other_stages() -> None:
    context = Context()
    context.stage("Fetching")
    context.advance(10)
    assert context.progress.first_step_at is None
    context.stage("Training", of=9)
    context.step(1)
    first = context.progress.first_step_at
    assert first is not None
    assert first > 1.7e9
    context.step(2)
    context.stage("Publishing")
    assert context.progress.first_step_at == first


def test_what_is_known_of_checkpoints_stays_from_stage_to_stage() -> None:
    context = Context()
    context.kept(400, 1, 12)
    context.stage("Evaluating", of=5)
    context.step(3)
    said = context.progress
    assert (said.last_checkpoint, said.resumes, said.lost_steps, said.step) == (400, 1, 12, 3)


def test_bytes_are_counted_as_they_come_and_go(registry: FakeRegistry, tmp_path: Path) -> None:
    context = Context()
    client = Registry(Access(plain_http=(registry.host,)), meter=context)
    path = tmp_path / "weights"
    path.write_bytes(b"x" * 3_000_000)
    context.stage("Publishing")
    made = client.push_artifact(Sink(repository=f"{registry.host}/slm/m"), {"weights": path}, MODEL_TYPE, {})
    assert context.progress.step == context.progress.of == 3_000_002, "the file, and an empty configuration"
    context.stage("Publishing")
    client.push_artifact(Sink(repository=f"{registry.host}/slm/m"), {"weights": path}, MODEL_TYPE, {})
    assert context.progress.step == context.progress.of == 3_000_002, "what the registry has counts as sent"
    context.stage("Fetching")
    client.pull(Source(uri=f"oci://{made.reference}"), tmp_path / "in")
    assert context.progress.step == context.progress.of == 3_000_000


def test_metrics_are_what_prometheus_reads() -> None:
    said = Progress(stage="Training", step=420, of=1200, loss=0.5, last_checkpoint=400, resumes=1)
    text = metrics(said)
    assert 'slmops_run_step{stage="Training",unit="Steps"} 420.0\n' in text
    assert 'slmops_run_last_checkpoint{stage="Training",unit="Steps"} 400.0\n' in text
    assert "eta_seconds" not in text, "what is not known is left out"
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) slmops_run_[a-z_]+ .+|slmops_run_[a-z_]+\{[^}]*\} [0-9.e+-]+", line), line


def test_the_pages_are_served_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Callable[[], None]] = []

    class Noted(threading.Thread):
        def start(self) -> None:
            if not started:
                self._kwargs = {"poll_interval": 0.01}  # so long it takes to stop
            started.append(self._target.__self__)  # type: ignore[attr-defined]
            super().start()

    monkeypatch.setenv("PROGRESS_PORT", "0")
    monkeypatch.setattr("slmkit.page.threading.Thread", Noted)
    serve(lambda: Progress(stage="Training", step=7))
    server = started[0]
    base = f"http://127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    try:
        with urllib.request.urlopen(f"{base}/progress", timeout=5) as answer:
            assert Progress.model_validate_json(answer.read()).step == 7
        with urllib.request.urlopen(f"{base}/metrics", timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert b"slmops_run_step" in answer.read()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{base}/etc/passwd", timeout=5)
        assert refused.value.code == 404
        refused.value.close()
    finally:
        server.shutdown()  # type: ignore[attr-defined]
        server.server_close()  # type: ignore[attr-defined]

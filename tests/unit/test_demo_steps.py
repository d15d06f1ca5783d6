"""What the demo does where an earlier one was cut off: a release that helm has given up on, a teacher's Job that failed."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from demo import __main__ as demo
from demo import steps, summary
from slmkit.run import RunFailed
from slmops import contract
from slmops.api.conditions import timestamp

Manifest = dict[str, Any]
REFERENCE = f"registry.example/slm/teacher@sha256:{'ab' * 32}"
RUN = contract.PullRun(run="", model_path="/models")


class Fake:
    """kubectl against nothing; the Job's story is told by the test, one state a look."""

    namespace = "edge-ai"

    def __init__(self, *story: tuple[Manifest | None, list[Manifest]], secrets: list[Manifest] | None = None) -> None:
        self.story, self.said = list(story), list[str]()
        self.secrets = secrets or []
        self._pods: list[Manifest] = []

    def __call__(self, *arguments: str | Path, stdin: str | None = None, check: bool = True) -> str:
        self.said.append(" ".join(map(str, arguments[:2])))
        if arguments[:2] == ("delete", "secrets"):
            self.secrets = []
        return ""

    def get(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
        job, self._pods = self.story.pop(0) if len(self.story) > 1 else self.story[0]
        return job

    def items(self, kind: str, *arguments: str, namespace: str = "") -> list[Manifest]:
        return self.secrets if kind == "secrets" else self._pods


def job(ended: str | None = None) -> Manifest:
    conditions = [{"type": ended, "status": "True", "reason": "BackoffLimitExceeded", "message": "it has failed"}]
    return {"metadata": {"name": "teacher", "uid": "u"}, "status": {"conditions": conditions if ended else []}}


def pod(exit_code: int, message: str) -> Manifest:
    ended = {"exitCode": exit_code, "reason": "Error", "message": message}
    containers = [{"name": "run", "state": {"terminated": ended}}]
    return {
        "metadata": {"name": "p", "creationTimestamp": "2026-11-30T08:00:00Z", "labels": {}},
        "status": {"phase": "Succeeded", "containerStatuses": containers},
    }


GOOD = contract.Report(
    outcome="Succeeded", artifacts={"model": contract.Artifact(reference=REFERENCE, size=1)},
    evaluation={"model": contract.Figures(exact_match=0.9)},
).model_dump_json()  # fmt: skip
BAD = contract.Report(outcome="Failed", reason=contract.Reason.OUT_OF_MEMORY, message="it was killed").model_dump_json()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps.time, "sleep", lambda seconds: None)


def trained(fake: Fake) -> contract.Artifact:
    return steps.train_once(fake, {"trainer": "trainer:1"}, RUN, "teacher", lambda text: None)  # type: ignore[arg-type]


def test_a_teacher_that_was_trained_is_taken_and_its_job_forgotten() -> None:
    fake = Fake((None, []), (None, []), (job("Complete"), [pod(0, GOOD)]))
    assert trained(fake).reference == REFERENCE
    assert fake.said == ["apply -f", "delete job,configmap"]


def test_one_that_failed_in_an_earlier_run_is_trained_anew() -> None:
    fake = Fake((job("Failed"), []), (None, []), (job("Complete"), [pod(0, GOOD)]))
    assert trained(fake).reference == REFERENCE
    assert fake.said == ["delete job,configmap", "apply -f", "delete job,configmap"]


@pytest.mark.parametrize(
    ("story", "said"),
    [
        ((job("Failed"), []), "BackoffLimitExceeded"),
        ((job("Failed"), [pod(3, BAD)]), "OutOfMemory: it was killed"),
        ((job("Failed"), [pod(1, "Killed by nobody knows whom")]), "the teacher's training failed"),
        ((None, []), "its Job is gone"),
    ],
)
def test_one_that_fails_now_says_why_at_once(story: tuple[Manifest | None, list[Manifest]], said: str) -> None:
    fake = Fake((job(), []), (job(), []), story)
    with pytest.raises(RuntimeError, match=said):
        trained(fake)
    assert fake.said == ["delete job,configmap"], "so that the next demo begins anew"


def test_a_release_that_helm_has_given_up_on_is_forgotten() -> None:
    old = timestamp(datetime.now(UTC) - timedelta(seconds=steps.HELM_SECONDS + 5))
    fake = Fake((None, []), secrets=[{"metadata": {"creationTimestamp": old}}])
    steps.clear_broken_release(fake)  # type: ignore[arg-type]
    assert fake.said == ["delete secrets"]


def test_one_that_may_be_at_work_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake((None, []), secrets=[{"metadata": {"creationTimestamp": timestamp(datetime.now(UTC))}}])
    monkeypatch.setattr(steps.time, "sleep", lambda seconds: fake.secrets.clear())
    steps.clear_broken_release(fake)  # type: ignore[arg-type]
    assert fake.said == []


def test_a_node_out_of_reach_does_not_spoil_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> str:
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(summary, "chat", refused)
    assert "no answer: nobody there" in summary.answer("http://node:1")


@pytest.mark.parametrize(
    "error",
    [RunFailed(contract.Reason.REGISTRY_UNREACHABLE, "no registry"), OSError("no disk"), RuntimeError("no luck"),
     subprocess.CalledProcessError(1, ["buildah"])],
)  # fmt: skip
def test_what_goes_wrong_is_a_line_and_no_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise error

    monkeypatch.setattr(demo, "choose", fails)
    monkeypatch.setattr("sys.argv", ["demo"])
    assert demo.main() == 1
    assert capsys.readouterr().err == f"demo: {error}\n"


def test_the_list_that_is_applied_is_a_configuration_and_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    applied: list[Manifest] = []

    class Recording(Fake):
        def __call__(self, *arguments: str | Path, stdin: str | None = None, check: bool = True) -> str:
            if stdin:
                applied.append(json.loads(stdin))
            return super().__call__(*arguments, stdin=stdin, check=check)

    trained(Recording((None, []), (None, []), (job("Complete"), [pod(0, GOOD)])))
    (found,) = applied
    assert [item["kind"] for item in found["items"]] == ["ConfigMap", "Job"]


def test_a_slow_machine_is_no_failure_but_one_that_stands_still_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(steps.time, "monotonic", lambda: now)
    watch = steps.Watch()
    for minute in range(300):
        now = 60.0 * minute
        assert not watch.still(f"Training {minute // 15}%")
    now += steps.STILL_SECONDS + 1
    assert watch.still("Training 19%")


# --- a demo that was interrupted goes on in the cluster


@pytest.mark.parametrize(
    ("states", "so"),
    [({}, False), (dict.fromkeys(steps.CHAIN, "True"), False), (dict.fromkeys(steps.CHAIN, "Unknown"), True),
     (dict.fromkeys(steps.CHAIN[:3], "True"), True),
     (dict.fromkeys(steps.CHAIN, "Unknown") | {steps.CHAIN[2]: "False"}, False),
     (dict.fromkeys(steps.CHAIN, "Unknown") | {steps.CHAIN[1]: "False"}, True)],
)  # fmt: skip
def test_a_chain_that_is_on_its_way_is_told_from_one_that_has_ended(states: dict[Any, str], so: bool) -> None:
    class Cluster(Fake):
        def __call__(self, *arguments: str | Path, stdin: str | None = None, check: bool = True) -> str:
            return "customresourcedefinition/distillations.slmops.dev"

        def get(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
            found = [(type, status) for (k, n, type), status in states.items() if (k, n) == (kind, name)]
            conditions = [{"type": type, "status": status} for type, status in found]
            return {"status": {"conditions": conditions}} if found else None

    assert steps.unfinished(Cluster()) is so  # type: ignore[arg-type]

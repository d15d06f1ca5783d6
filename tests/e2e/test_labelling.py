"""Labelling on the cluster, by a teacher that throttles, breaks and lies; its log of requests is the witness."""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.steps import Manifest, condition, wait_for
from slmkit.data import Example, write_messages
from slmkit.registry import Registry
from slmops import contract
from slmops.contract import DATASET_TYPE, Sink
from tests.cluster import Cluster
from tests.e2e.platform import Platform
from tests.unit.images.fakellm import FakeLLM, Reply, served

pytestmark = pytest.mark.cluster
TEACHER = ("10.77.0.1", 5998)
"""An address of this machine that pods reach."""
PROMPTS, CONCURRENCY, BEFORE = 60, 4, 25
TROUBLE = [
    Reply(status=429, headers={"Retry-After": "1"}), Reply(status=500), Reply(status=503), Reply(body=b"{half"),
    Reply(body=b'{"choices": []}'), Reply("an answer that breaks off", cut=40), Reply(cut=0), None,
]  # fmt: skip


class Teacher(FakeLLM):
    """Each prompt meets a trouble of its own before it is answered; and after so many answers nobody is, until released."""

    def __init__(self, before: int | None) -> None:
        super().__init__(self.say, host=TEACHER[0], port=TEACHER[1])
        self.before = before
        self.held = 0
        """Requests that wait."""

    def say(self, text: str, time: int) -> Reply:
        if self.before is not None and self.answered.total() >= self.before:
            self.held += 1
            return Reply(delay=3600)
        trouble = TROUBLE[int(text.split()[-1]) % len(TROUBLE)]
        return trouble if trouble and time == 1 else Reply(f"answer to {text}", delay=0.05)


@contextmanager
def teacher(before: int | None = None) -> Iterator[Teacher]:
    """The teacher, for a test."""
    asked = Teacher(before)
    with served(asked):
        yield asked


@pytest.fixture(scope="module")
def prompts(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of the prompts."""
    path = tmp_path_factory.mktemp("prompts") / "train.jsonl"
    write_messages(path, (Example(({"role": "user", "content": f"prompt {i}"},), None) for i in range(PROMPTS)))
    client = Registry(contract.Registry(plain_http=platform.cluster.plain_http))
    sink = Sink(repository=f"{platform.registry}/slm/data/e2e-labelling")
    client.tag(sink, client.push_artifact(sink, {path.name: path}, DATASET_TYPE, {}), "v1")
    return f"oci://{sink.repository}:v1"


def distillation(platform: Platform, name: str, data: str, **spec: Any) -> Manifest:
    """A Distillation of which the labelling alone matters."""
    endpoint = {"url": f"http://{TEACHER[0]}:{TEACHER[1]}/v1", "model": "m", "concurrency": CONCURRENCY}
    return {
        "apiVersion": "slmops.dev/v1alpha1", "kind": "Distillation",
        "metadata": {"name": name, "namespace": platform.kubectl.namespace},
        "spec": {
            "teacher": {"endpoint": endpoint, "sampling": {"temperature": 0, "maxTokens": 16}},
            "student": {"architecture": {}},
            "data": {"train": {"uri": data}},
            "run": {"nodeSelector": {"pool": "gpu"}},
            "output": {"repository": f"{platform.registry}/slm/{name}"},
        } | spec,
    }  # fmt: skip


def pod_of(platform: Platform, name: str) -> Manifest | None:
    """The labelling pod that runs."""
    selector = f"slmops.dev/name={name},slmops.dev/role=label"
    found = platform.kubectl.items("pods", "-l", selector, "--field-selector=status.phase=Running")
    return found[0] if found else None


def process(pod: Manifest) -> int:
    """The labelling's process in a pod of the local cluster, as the machine numbers it."""
    for entry in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            ours = pod["metadata"]["uid"] in (entry / "cgroup").read_text()
            if ours and b"slm_trainer" in (entry / "cmdline").read_bytes():
                return int(entry.name)
        except OSError:
            continue
    raise AssertionError(f"no process of {pod['metadata']['name']}")


def labelled(platform: Platform, name: str) -> dict[str, Any]:
    """What became of the prompts, once they are labelled."""
    found = platform.wait("distillation", name, "Synthesized", "True", 240)
    return dict(found["status"]["dataset"])


@pytest.mark.parametrize("how", ["killed", "evicted"])
def test_no_prompt_is_asked_again_once_it_was_answered(
    platform: Platform, local: Cluster, prompts: str, how: str
) -> None:
    """The pod dies in the middle, with requests in flight; its successor asks for the rest."""
    name = f"label-{how}"
    volume = {"volume": {"size": "16Mi"}, "nodeSelector": {"pool": "gpu"}}
    with teacher(BEFORE) as asked:
        platform.apply(distillation(platform, name, prompts, labelling=volume))
        # Who has a further request in flight has put the answer before into the journal.
        wait_for(
            "all requests held", lambda: asked.held == CONCURRENCY, 180, lambda: platform.show("distillation", name)
        )
        first = pod_of(platform, name)
        assert first is not None
        known, begun = set(asked.answered), len(asked.asked)
        assert len(known) >= BEFORE
        if how == "killed":
            os.kill(process(first), signal.SIGKILL)
        else:
            platform.kubectl(
                "delete", "pod", first["metadata"]["name"], "-n", platform.kubectl.namespace, "--wait=false"
            )
        gone = lambda: (pod_of(platform, name) or first)["metadata"]["uid"] != first["metadata"]["uid"]  # noqa: E731
        wait_for("another pod", gone, 120, lambda: platform.show("distillation", name))
        asked.before = None
        dataset = labelled(platform, name)
        again = Counter(body["messages"][-1]["content"] for _, body in asked.asked[begun:])
        assert known.isdisjoint(again), "asked again, and paid again"
        assert set(asked.answered.values()) == {1}, "every prompt was answered once"
        assert len(asked.answered) == PROMPTS
        assert (dataset["labelled"], dataset["kept"], dataset["reused"]) == (PROMPTS, PROMPTS, len(known))
        assert dataset["promptTokens"] == 2 * PROMPTS, "of both pods, as the teacher counted"
        assert dataset["completionTokens"] == 4 * PROMPTS
        assert "dropped" not in dataset or dataset["dropped"] == {}
    platform.kubectl("delete", "distillation", name, "-n", platform.kubectl.namespace)


def test_a_teacher_without_hope_is_told_by_its_reasons(platform: Platform, prompts: str) -> None:
    """Each prompt is refused in one way or another; the message counts them, and nothing is published."""

    def refuse(text: str, time: int) -> Reply:
        number = int(text.split()[-1])
        if number % 3 == 0:
            return Reply("good")
        return Reply(status=400, body=json.dumps({"error": {"code": "context_length_exceeded"}}).encode())

    llm = FakeLLM(refuse, host=TEACHER[0], port=TEACHER[1])
    with served(llm):
        platform.apply(distillation(platform, "label-refused", prompts))
        found = platform.wait("distillation", "label-refused", "Succeeded", "False", 180)
    told = condition(found, "Succeeded")
    assert told["reason"] == "TooFewAnswers"
    assert f"answered {PROMPTS // 3} of {PROMPTS} prompts" in told["message"]
    assert f"{PROMPTS - PROMPTS // 3} ContextTooLong" in told["message"]
    assert len(llm.asked) == PROMPTS, "a definite no is not asked again, nor by another pod"


def test_a_task_with_too_few_prompts_is_refused_before_anything_is_asked(platform: Platform, prompts: str) -> None:
    with teacher() as asked:
        platform.apply(distillation(platform, "label-few", prompts, task="NLI"))
        found = platform.wait("distillation", "label-few", "Succeeded", "False", 180)
        assert asked.asked == []
    told = condition(found, "Succeeded")
    assert told["reason"] == "InvalidData"
    assert f"spec.task NLI needs at least 65 prompts to train on, {prompts} holds {PROMPTS}" in told["message"]

"""The other way to teach: the teacher's weights inside the Job, and its next-token distributions as the objective."""

from pathlib import Path

import pytest

from demo.assets import TAG, records
from demo.task import BASE_DOMAINS
from slmkit.data import write_messages
from slmkit.registry import Registry
from slmops import contract
from slmops.contract import DATASET_TYPE, Sink
from tests.e2e.platform import NAMESPACE, Platform

pytestmark = [pytest.mark.cluster, pytest.mark.long]
PROMPTS = 160
SECONDS = 600


def test_a_student_learns_from_the_teachers_weights(platform: Platform, tmp_path: Path) -> None:
    access = contract.Registry(plain_http=platform.cluster.plain_http)
    sink = Sink(repository=f"{platform.registry}/slm/data/e2e-weights")
    path = tmp_path / "prompts.jsonl"
    write_messages(path, records(BASE_DOMAINS, 11, PROMPTS, answers=False))
    client = Registry(access)
    client.tag(sink, client.push_artifact(sink, {path.name: path}, DATASET_TYPE, {}), TAG)
    teacher = f"oci://{platform.registry}/slm/teacher:{TAG}"
    platform.apply({
        "apiVersion": "slmops.dev/v1alpha1", "kind": "Distillation",
        "metadata": {"name": "by-weights", "namespace": NAMESPACE},
        "spec": {
            "teacher": {"model": {"uri": teacher}, "sampling": {"temperature": 0, "maxTokens": 64}},
            "student": {"architecture": {"hiddenSize": 64, "layers": 1, "attentionHeads": 2, "keyValueHeads": 1,
                                         "intermediateSize": 128, "vocabularySize": 1023}},
            "data": {"train": {"uri": f"oci://{sink.repository}:{TAG}"}, "validationSplit": 0.2},
            "objective": {"type": "Logits", "temperature": 2.0, "alpha": 0.5, "topK": 16},
            "training": {"epochs": 4, "batchSize": 16, "learningRate": 3.0e-3},
            "evaluation": {"samples": 16, "maxNewTokens": 64},
            "run": {"nodeSelector": {"pool": "gpu"}},
            "output": {"repository": f"{platform.registry}/slm/by-weights"},
        },
    })  # fmt: skip
    status = platform.wait("distillation", "by-weights", "Succeeded", "True", SECONDS)["status"]

    counts = status["dataset"]
    assert counts["prompts"] == counts["labelled"] == PROMPTS
    assert counts["tokens"] > PROMPTS, "the teacher wrote more than a token an answer"
    figures = status["evaluation"]
    assert figures["teacher"]["ExactMatch"] > 0.5, "the held-out answers are the teacher's own"
    assert figures["comparison"]["WeightsReduction"] > 0.95
    assert figures["comparison"]["InferenceTimeReduction"] > 0.5, "one narrow layer against six wide ones"
    assert "@sha256:" in status["artifact"]["reference"]
    assert all("@sha256:" in status["inputs"][role] for role in ("teacher", "train"))

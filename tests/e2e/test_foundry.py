"""Foundry Local's own SDK finds, loads and asks the model of an image; OpenAI's own client asks a server on a node."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from demo.assets import records
from demo.task import IRRIGATION
from tests import pinned
from tests.e2e.chain import Seen
from tests.e2e.platform import NAMESPACE, Platform

pytestmark = pytest.mark.cluster
HERE = Path(__file__).parent / "foundry"
QUESTIONS = 20
NAME = "by-foundry"


def test_its_sdk_lists_loads_and_chats_with_a_model_image(platform: Platform, chain: Seen, tmp_path: Path) -> None:
    reference = chain.images("farm-irrigation")["cpu-int4"]
    with tarfile.open(fileobj=io.BytesIO(platform.crane("export", reference, "-"))) as tar:
        tar.extractall(tmp_path / "image", filter="data")
    (folder,) = (tmp_path / "image" / "models").iterdir()
    examples = records((IRRIGATION,), 8, QUESTIONS, held_out=True)
    questions = [example.prompt[-1]["content"] for example in examples]
    (tmp_path / "place").mkdir()
    command = [pinned.python(HERE / "constraints.txt"), HERE / "ask.py", folder, tmp_path / "place", *questions]
    answer = subprocess.check_output([str(part) for part in command], text=True)
    found = json.loads(answer.splitlines()[-1])
    name = json.loads((folder / "inference_model.json").read_text())["Name"]
    assert name in found["listed"]
    assert found["loaded"] == [name]
    assert found["context"] == json.loads((folder / "genai_config.json").read_text())["model"]["context_length"]
    right = [said == example.completion for said, example in zip(found["answers"], examples, strict=True)]
    assert sum(right) >= 0.6 * QUESTIONS, list(zip(questions, found["answers"], strict=True))


def test_openais_client_talks_with_a_server_on_a_node(platform: Platform, chain: Seen) -> None:
    pods = platform.kubectl.items("pods", "-l", "slmops.dev/name=farms,slmops.dev/role=serve")
    base = next(f"http://{pod['status']['podIP']}:8080" for pod in pods if pod["status"].get("podIP"))
    question = records((IRRIGATION,), 8, 1, held_out=True)[0].prompt[-1]["content"]
    command = [pinned.python(HERE / "constraints.txt"), HERE / "openai_client.py", base, "farm-irrigation", question]
    found = json.loads(subprocess.check_output([str(part) for part in command], text=True))
    assert found["models"] == ["farm-irrigation"]
    assert found["whole"] == found["streamed"] != ""
    assert found["counts"][0] == found["counts"][1] > 0
    assert found["text"][0] == "text_completion"
    assert found["refusals"] == {
        "model": ["NotFoundError", "model_not_found"], "context": ["BadRequestError", "context_length_exceeded"],
        "field": ["BadRequestError", "invalid_value"],
    }  # fmt: skip


def test_the_engine_foundry_local_serves_the_same_image(platform: Platform, chain: Seen) -> None:
    """As another EdgeDeployment on the same nodes, with a benchmark of its own before it gets any traffic."""
    reference = chain.images("farm-irrigation")["cpu-int4"]
    platform.apply({
        "apiVersion": "slmops.dev/v1alpha1", "kind": "EdgeDeployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "model": {"image": reference}, "runtime": {"engine": "FoundryLocal"},
            "pools": [{"name": "farms", "selector": {"matchLabels": {"pool": "farms"}}}],
            "benchmark": {"data": {"uri": f"oci://{platform.registry}/slm/data/irrigation-benchmark:v1"}, "prompts": 8},
            "gates": [{"metric": "PeakMemory", "max": "600Mi"}, {"metric": "ErrorRate", "max": 0}],
        },
    })  # fmt: skip
    try:
        status = platform.wait("edgedeployment", NAME, "Ready", "True", 900)["status"]
        verdicts = {row["verdict"] for pool in status["pools"] for row in pool["classes"]}
        assert verdicts == {"Passed"}, status["pools"]
        pods = platform.kubectl.items("pods", "-l", f"slmops.dev/name={NAME},slmops.dev/role=serve")
        base = next(f"http://{pod['status']['podIP']}:8080" for pod in pods if pod["status"].get("podIP"))
        examples = records((IRRIGATION,), 8, QUESTIONS, held_out=True)
        said = [platform.chat(base, example.prompt[-1]["content"], NAME) for example in examples]
        texts = [answer["choices"][0]["message"]["content"] for answer in said]
        right = [text == example.completion for text, example in zip(texts, examples, strict=True)]
        assert sum(right) >= 0.6 * QUESTIONS, texts
        command = [pinned.python(HERE / "constraints.txt"), HERE / "openai_client.py", base, NAME, "hello", "chats"]
        found = json.loads(subprocess.check_output([str(part) for part in command], text=True))
        assert found["whole"] == found["streamed"] != ""
        assert found["refusals"]["context"] == ["BadRequestError", "context_length_exceeded"]
    finally:
        platform.kubectl("delete", "edgedeployment", NAME, "-n", NAMESPACE, "--ignore-not-found")

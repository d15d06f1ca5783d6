"""What can be taught and by whom, on the real cluster: teachers that think, agree or show their layers, and records that
are texts, labels from a table, or pairs of answers. Small enough that each is over in about a minute."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.assets import records
from demo.steps import Manifest
from demo.task import BASE_DOMAINS, IRRIGATION
from slmops.contract import Source
from tests.e2e import toys
from tests.e2e.platform import NAMESPACE, Platform
from tests.e2e.toys import client, dataset, publish
from tests.unit.images.fakellm import FakeLLM, Reply, served

pytestmark = [pytest.mark.cluster, pytest.mark.long]
SECONDS = 600
TEACHER = ("10.77.0.1", 5996)
"""An address of this machine that pods reach."""
SUMS = [(number, 2 * number + 1) for number in range(46)]
SYSTEM = "Calculate."
UNSURE, SILENT, HELD_OUT = {5, 6, 7}, {8}, {0, 1}
"""Sums (by their first number) of which each sample is another one, that come to nothing, and that are held out."""


def question(a: int, b: int) -> str:
    return f"what is {a} plus {b}"


def say(text: str, time: int) -> Reply:
    """A teacher that reasons about sums, and sums up all else in five rounds."""
    if not text.startswith("what is"):
        return Reply(json.dumps([{"missing": "", "summary": f"round {n}"} for n in range(5)]))
    a, b = (int(word) for word in text.split() if word.isdecimal())
    if a in SILENT:
        return Reply("I would rather not say.")
    return Reply(json.dumps({"reasoning": "one by one", "answer": str(a + b + (time if a in UNSURE else 0))}))


def resource(platform: Platform, kind: str, name: str, **spec: Any) -> Manifest:
    training = {"epochs": 20, "maxSteps": 8, "batchSize": 8, "learningRate": 0.003} | spec.pop("training", {})
    return {
        "apiVersion": "slmops.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "training": training,
            "evaluation": {"samples": 6, "maxNewTokens": 4},
            "output": {"repository": f"{platform.registry}/slm/learning"},
            "run": toys.ONE_AT_A_TIME,
            **spec,
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the files of the data sets."""
    return tmp_path_factory.mktemp("data")


def table(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        written = csv.DictWriter(file, rows[0].keys())
        written.writeheader()
        written.writerows(rows)
    return path


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


Apply = Callable[..., Manifest]


@pytest.fixture
def made(platform: Platform) -> Iterator[Apply]:
    """Apply a resource and wait for a condition; its status. It goes with the test."""
    known: list[Manifest] = []

    def applied(manifest: Manifest, condition: str = "Succeeded") -> Manifest:
        known.append(manifest)
        platform.apply(manifest)
        kind, name = manifest["kind"].lower(), manifest["metadata"]["name"]
        status: Manifest = platform.wait(kind, name, condition, "True", SECONDS)["status"]
        return status

    yield applied
    for manifest in known:
        kind, name = manifest["kind"].lower(), manifest["metadata"]["name"]
        platform.kubectl("delete", kind, name, "-n", NAMESPACE, "--ignore-not-found")


def endpoint() -> Manifest:
    return {"url": f"http://{TEACHER[0]}:{TEACHER[1]}/v1", "model": "m"}


def test_a_student_learns_by_lora_what_a_teacher_that_thinks_aloud_agrees_with_itself_on(
    platform: Platform, base: str, folder: Path, made: Apply
) -> None:
    sums = table(folder / "sums.csv", *({"sum": question(a, b)} for a, b in SUMS))
    judge = [(a, b) for a, b in SUMS if a in HELD_OUT] + [(90 + n, n) for n in range(4)]
    held_out = lines(folder / "judge.jsonl", *({"prompt": question(a, b), "completion": str(a + b)} for a, b in judge))
    data = publish(platform, "learning-sums", sums, held_out)
    with served(FakeLLM(say, host=TEACHER[0], port=TEACHER[1])) as teacher:
        status = made(resource(
            platform, "Distillation", "thinker", task="Math",
            teacher={"endpoint": endpoint(), "sampling": {"temperature": 0.7, "maxTokens": 64, "samples": 3},
                     "prompt": {"system": SYSTEM, "chainOfThought": True}},
            student={"model": {"uri": base}, "method": "LoRA", "lora": {"rank": 4}},
            data={"train": {"uri": data, "path": sums.name, "format": "PromptCompletion", "columns": {"prompt": "sum"}},
                  "filters": {"agreement": 2}},
            training={"maxSteps": 20},
            evaluation={"data": {"uri": data, "path": held_out.name, "format": "PromptCompletion"}, "samples": 6,
                        "maxNewTokens": 4},
        ))  # fmt: skip
    told = {body["messages"][0]["content"] for _, body in teacher.asked}
    assert len(told) == 1
    assert told.pop().startswith(f"{SYSTEM}\n\nFirst reason about the task step by step")
    assert len(teacher.asked) == 3 * (len(SUMS) - len(HELD_OUT)) + len(judge)
    counted = status["dataset"]
    assert counted["dropped"] == {"Leaked": len(HELD_OUT), "Disagreement": len(UNSURE), "NoFinalAnswer": len(SILENT)}
    assert (counted["prompts"], counted["kept"]) == (len(SUMS), len(SUMS) - 6)
    client(platform).pull(Source(uri=f"oci://{counted['report']}"), folder / "labelled")
    labelled = [json.loads(line)["messages"] for line in (folder / "labelled" / "train.jsonl").read_text().splitlines()]
    assert labelled[0] == [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question(*SUMS[2])},
        {"role": "assistant", "content": str(sum(SUMS[2]))},
    ]
    figures = status["evaluation"]
    assert (figures["teacher"]["ExactMatch"], figures["teacher"]["Samples"]) == (1, 6)
    assert figures["model"]["Samples"] == 6
    assert figures["model"]["Perplexity"] < figures["baseline"]["Perplexity"]
    (config,) = platform.kubectl.items("configmaps", "-l", "slmops.dev/name=thinker,slmops.dev/role=train")
    assert json.loads(config["data"]["run.json"])["system_prompt"] == SYSTEM


def test_of_a_summary_in_five_rounds_the_last_one_is_learned(platform: Platform, folder: Path, made: Apply) -> None:
    texts = lines(folder / "texts.jsonl", *({"prompt": f"text {n} " + "word " * 30} for n in range(65)))
    with served(FakeLLM(say, host=TEACHER[0], port=TEACHER[1])):
        status = made(
            resource(
                platform, "Distillation", "dense", task="Summarization",
                teacher={"endpoint": endpoint(), "prompt": {"chainOfDensity": True, "maxSummaryLength": 20}},
                student={"architecture": {}},
                data={"train": {"uri": publish(platform, "learning-texts", texts), "format": "PromptCompletion"}},
            ),
            "Synthesized",
        )  # fmt: skip
    client(platform).pull(Source(uri=f"oci://{status['dataset']['report']}"), folder / "dense")
    said = [json.loads(line)["messages"][-1]["content"] for line in (folder / "dense" / "train.jsonl").open()]
    assert set(said) == {"round 4"}
    assert status["dataset"]["kept"] == 65


def test_a_student_learns_from_the_layers_of_its_teacher(platform: Platform, folder: Path, made: Apply) -> None:
    prompts = dataset(platform, folder, "learning-layers", records(BASE_DOMAINS, 11, 40, answers=False))
    status = made(resource(
        platform, "Distillation", "layers",
        teacher={"model": {"uri": f"oci://{platform.registry}/slm/teacher:v1"}, "sampling": {"maxTokens": 64}},
        student={"architecture": {"hiddenSize": 32, "layers": 2, "attentionHeads": 2, "keyValueHeads": 1,
                                  "intermediateSize": 64}},
        objective={"type": "Features", "attention": True,
                   "layers": [{"student": 1, "teacher": 3}, {"student": 2, "teacher": 6}]},
        data={"train": {"uri": prompts}, "validationSplit": 0.2},
        training={"maxSteps": 20},
    ))  # fmt: skip
    curve = [point["trainLoss"] for point in status["learning"]["curve"]]
    assert curve[-1] < curve[0]
    assert status["evaluation"]["comparison"]["WeightsReduction"] > 0.9
    assert "@sha256:" in status["artifact"]["reference"]


def test_texts_are_learned_and_judged_by_their_perplexity(
    platform: Platform, base: str, folder: Path, made: Apply
) -> None:
    said = [example.prompt[-1]["content"] for example in records((IRRIGATION,), 6, 240)]
    texts = [{"text": ". ".join(said[begin : begin + 6])} for begin in range(0, len(said), 6)]
    data = publish(platform, "learning-plain", lines(folder / "plain.jsonl", *texts))
    status = made(resource(
        platform, "FineTune", "plain", base={"uri": base}, method="Full",
        data={"train": {"uri": data, "format": "Text"}, "validationSplit": 0.3},
        training={"maxSequenceLength": 64, "maxSteps": 30},
        gates=[{"metric": "Perplexity", "max": 500}],
    ))  # fmt: skip
    figures = status["evaluation"]
    for role in ("model", "baseline"):
        assert figures[role].keys() == {"Perplexity", "WeightBytes", "Parameters", "Samples"}
    assert figures["model"]["Perplexity"] < figures["baseline"]["Perplexity"]
    assert status["gates"][0]["outcome"] == "Passed"


def test_a_classifier_is_made_from_a_table(platform: Platform, base: str, folder: Path, made: Apply) -> None:
    moods = {"good": "the hens are well", "bad": "a pump has failed"}
    rows = [{"body": f"{moods[mood]}, note {n}", "mood": mood} for n in range(40) for mood in moods]
    data = publish(platform, "learning-moods", table(folder / "moods.csv", *rows, rows[-1]))
    status = made(resource(
        platform, "FineTune", "classifier", base={"uri": base}, method="DoRA", lora={"rank": 4}, task="Classification",
        data={"train": {"uri": data, "format": "Classification", "columns": {"text": "body", "label": "mood"},
                        "labels": ["good", "bad"]}, "validationSplit": 0.2, "filters": {}},
        training={"maxSteps": 40}, evaluation={"samples": 16, "maxNewTokens": 4},
    ))  # fmt: skip
    figures = status["evaluation"]
    assert "BLEU" not in figures["model"]
    assert figures["model"]["F1"] > figures["baseline"]["F1"]
    assert status["dataset"]["prompts"] == len(rows) + 1
    assert status["dataset"]["dropped"] == {"Duplicate": 1}


def test_better_and_worse_answers_are_learned_on_two_nodes(
    platform: Platform, base: str, folder: Path, made: Apply
) -> None:
    pairs = [
        {"prompt": example.prompt[-1]["content"], "chosen": example.completion, "rejected": "no"}
        for example in records((IRRIGATION,), 4, 40)
    ]
    data = publish(platform, "learning-pairs", lines(folder / "pairs.jsonl", *pairs))
    status = made(resource(
        platform, "FineTune", "pairs", base={"uri": base}, lora={"rank": 4}, loss={"type": "Contrastive", "margin": 2},
        data={"train": {"uri": data, "format": "PromptCompletion", "columns": {"completion": "chosen"}},
              "validationSplit": 0.2},
        run={"nodes": 2, "retries": 0, "resources": {"requests": {"memory": "500Mi"}, "limits": {"memory": "1500Mi"}}},
    ))  # fmt: skip
    assert status["learning"]["steps"] == 8
    assert status["learning"]["curve"][-1]["trainLoss"] < status["learning"]["curve"][0]["trainLoss"]
    jobs = platform.kubectl.items("jobs", "-l", "slmops.dev/name=pairs")
    assert [job["spec"]["completions"] for job in jobs] == [2]

"""The models of the three batch kinds: the shortest manifest, defaults, what is refused, and the way back."""

from typing import Any

import pytest
from pydantic import ValidationError

from slmops.api.distillation import Distillation
from slmops.api.finetune import FineTune
from slmops.api.quantizedmodel import QuantizedModel
from slmops.api.resource import Resource
from tests.unit.builders import DATA, DIGEST, OUTPUT, body, holds

MODELS: dict[str, type[Resource[Any, Any]]] = {
    "Distillation": Distillation, "FineTune": FineTune, "QuantizedModel": QuantizedModel
}  # fmt: skip
FULL: dict[str, dict[str, Any]] = {
    "Distillation": {
        "teacher": {
            "model": {"uri": "hf://org/teacher@main", "credentials": {"secret": "hub"}},
            "sampling": {"temperature": 0, "topP": 1, "maxTokens": 64, "stop": ["\n"]},
            "prompt": {"system": "Answer in one word."},
        },
        "student": {"architecture": {"hiddenSize": 64, "tokenizer": {"distillation": {"name": "other"}}}},
        "data": {"train": DATA | {"path": "a/b.jsonl", "format": "PromptCompletion"}, "validationSplit": 0.2,
                 "filters": {"deduplicate": False, "maxTokens": 12}},
        "objective": {"type": "Features", "temperature": 1.5, "alpha": 1, "topK": 4, "attention": True,
                      "layers": [{"student": 1, "teacher": 3}]},
        "training": {"epochs": 1, "maxSteps": 7, "learningRate": 0.01, "scheduler": "Linear", "precision": "FP32"},
        "gates": [{"metric": "ExactMatch", "min": "92%"}, {"metric": "InferenceTime", "max": "200ms"}],
        "labelling": {"retries": 0, "deadline": "1h30m"},
        "output": OUTPUT | {"credentials": {"secret": "registry", "key": "auth"}},
    },
    "FineTune": {
        "base": {"fineTune": {"name": "before"}},
        "method": "LoRA",
        "lora": {"rank": 4, "alpha": 8, "dropout": 0, "targetModules": ["q_proj"]},
        "merge": False,
        "run": {
            "image": f"registry.example/trainer@{DIGEST}",
            "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "4Gi"}},
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "priorityClassName": "low",
        },
    },
    "QuantizedModel": {
        "variants": [{"name": "a", "precision": "FP32"}, {"name": "b", "algorithm": "KQuant", "blockSize": 64}],
        "generation": {"maxLength": 512, "temperature": 0},
        "evaluation": {"data": DATA, "samples": 10},
        "gates": [{"metric": "AccuracyRetained", "min": "92%"}],
    },
}  # fmt: skip


def parsed(kind: str, spec: dict[str, Any] | None = None, **fields: Any) -> Resource[Any, Any]:
    return MODELS[kind].model_validate(body(kind, spec, **fields))


def refused(kind: str, spec: dict[str, Any]) -> str:
    """Where the model says that the manifest is wrong."""
    with pytest.raises(ValidationError) as caught:
        parsed(kind, spec)
    return ".".join(str(part) for part in caught.value.errors()[0]["loc"])


@pytest.mark.parametrize("kind", MODELS)
def test_the_shortest_manifest_is_enough(kind: str) -> None:
    resource = parsed(kind)
    assert resource.spec.run.retries == 2
    assert resource.spec.run.deadline == "24h"
    assert resource.spec.gates == []


def test_a_quantized_model_without_variants_gets_one_for_processors() -> None:
    variants = parsed("QuantizedModel").spec.variants
    assert [(v.name, v.precision, v.target.architecture) for v in variants] == [("cpu-int4", "INT4", "amd64")]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("full", [False, True])
def test_what_is_dumped_is_parsed_to_the_same(kind: str, full: bool) -> None:
    before = parsed(kind, FULL[kind] if full else None)
    dumped = before.spec.dump()
    assert MODELS[kind].model_validate(body(kind, dumped)).spec == before.spec


@pytest.mark.parametrize("kind", MODELS)
def test_a_dump_says_what_the_user_said_in_the_users_words(kind: str) -> None:
    assert holds(parsed(kind, FULL[kind]).spec.dump(), FULL[kind])


@pytest.mark.parametrize("kind", MODELS)
def test_what_was_not_set_is_left_out_of_a_dump(kind: str) -> None:
    def empty(node: Any) -> bool:
        parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        return node is None or any(empty(part) for part in parts)

    assert not empty(parsed(kind).spec.dump())


@pytest.mark.parametrize("kind", MODELS)
def test_fields_of_a_newer_version_are_ignored(kind: str) -> None:
    newer = body(kind, {"fromTheFuture": {"a": 1}}, status={"fromTheFuture": 1, "phase": "Succeeded"})
    resource = MODELS[kind].model_validate(newer)
    assert resource.spec == parsed(kind).spec
    assert resource.status.phase == "Succeeded"


def test_every_kind_is_parsed_without_a_status_and_with_an_empty_one() -> None:
    for kind in MODELS:
        assert parsed(kind).status == parsed(kind, status={}).status


@pytest.mark.parametrize(
    ("kind", "spec", "where"),
    [
        ("FineTune", {"gates": [{"metric": "ExactMatch", "min": "good"}]}, "spec.gates.0.min"),
        ("FineTune", {"gates": [{"metric": "ExactMatch", "min": -1}]}, "spec.gates.0.min"),
        ("FineTune", {"run": {"resources": {"requests": {"cpu": -1}}}}, "spec.run.resources.requests.cpu"),
        ("FineTune", {"run": {"resources": {"limits": {"memory": "4GB"}}}}, "spec.run.resources.limits.memory"),
        ("FineTune", {"run": {"image": "registry.example/trainer:v1"}}, "spec.run.image"),
        ("FineTune", {"run": {"deadline": "90"}}, "spec.run.deadline"),
        ("FineTune", {"training": {"learningRate": float("nan")}}, "spec.training.learningRate"),
        ("FineTune", {"training": {"learningRate": 0}}, "spec.training.learningRate"),
        ("FineTune", {"base": {"uri": "ftp://example.com/model"}}, "spec.base.uri"),
        ("FineTune", {"base": {"uri": "oci://registry.example/a b"}}, "spec.base.uri"),
        ("FineTune", {"output": {"repository": "registry.example/slm/out:v1"}}, "spec.output.repository"),
        ("FineTune", {"lora": {"targetModules": []}}, "spec.lora.targetModules"),
        ("FineTune", {"data": {"train": DATA, "validationSplit": 0.9}}, "spec.data.validationSplit"),
        ("FineTune", {"data": {"train": DATA | {"path": "/etc/passwd"}}}, "spec.data.train.path"),
        ("Distillation", {"student": {"architecture": {"hiddenSize": 33}}}, "spec.student.architecture.hiddenSize"),
        ("QuantizedModel", {"variants": []}, "spec.variants"),
        ("QuantizedModel", {"variants": [{"name": "Big"}]}, "spec.variants.0.name"),
        ("QuantizedModel", {"variants": [{"name": "a", "blockSize": 33}]}, "spec.variants.0.blockSize"),
    ],
)
def test_a_bad_value_is_refused_and_the_field_is_named(kind: str, spec: dict[str, Any], where: str) -> None:
    assert refused(kind, spec) == where


@pytest.mark.parametrize("kind", MODELS)
def test_where_results_go_has_no_default(kind: str) -> None:
    assert refused(kind, {"output": None}) == "spec.output"

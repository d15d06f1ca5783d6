"""Bad manifests, and word for word what a user is told when applying them.

Each is one change to an example: ``path: value``, where a value of None takes the field away.
"""

from typing import Any

DISTILLATION = ("Distillation", "farm-assistant")
FINETUNE = ("FineTune", "farm-irrigation")
QUANTIZED = ("QuantizedModel", "farm-irrigation")
EDGE = ("EdgeDeployment", "farms")

CASES: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "two teachers": (DISTILLATION, {"spec.teacher.model": {"uri": "oci://registry.example/slm/teacher:v1"}}),
    "no teacher": (DISTILLATION, {"spec.teacher.endpoint": None}),
    "teacher address without scheme": (DISTILLATION, {"spec.teacher.endpoint.url": "teacher:8080/v1"}),
    "temperature of 3": (DISTILLATION, {"spec.teacher.sampling.temperature": 3}),
    "logits of a teacher that is an endpoint": (DISTILLATION, {"spec.objective": {"type": "Logits"}}),
    "output with a tag": (DISTILLATION, {"spec.output.repository": "registry.example/slm/student:v1"}),
    "no epochs": (FINETUNE, {"spec.training.epochs": 0}),
    "unknown field": (FINETUNE, {"spec.training.epoch": 3}),
    "base of two kinds": (FINETUNE, {"spec.base.uri": "oci://registry.example/slm/student:v1"}),
    "source of an unknown scheme": (FINETUNE, {"spec.base": {"uri": "ftp://example.com/model"}}),
    "gate with both bounds": (FINETUNE, {"spec.gates.0.max": "90%"}),
    "gate without a bound": (FINETUNE, {"spec.gates.0.min": None}),
    "bound that is no number": (FINETUNE, {"spec.gates.0.min": "good"}),
    "image by tag": (FINETUNE, {"spec.run.image": "registry.example/trainer:v1"}),
    "deadline without a unit": (FINETUNE, {"spec.run.deadline": "90"}),
    "no variants": (QUANTIZED, {"spec.variants": []}),
    "two variants of one name": (QUANTIZED, {"spec.variants.1.name": "cpu-int4"}),
    "unknown precision": (QUANTIZED, {"spec.variants.0.precision": "INT2"}),
    "pool without selector": (EDGE, {"spec.pools.0.selector": {"matchLabels": {}}}),
    "two pools of one name": (
        EDGE,
        {"spec.pools": [{"name": "a", "selector": {"matchLabels": {"a": "b"}}}] * 2},
    ),
    "last wave is not everything": (EDGE, {"spec.strategy.waves.1.nodes": "50%"}),
    "wave of no node": (EDGE, {"spec.strategy.waves.0.nodes": 0}),
    "gate without benchmark": (EDGE, {"spec.benchmark": None}),
    "unknown metric": (EDGE, {"spec.gates.0.metric": "Happiness"}),
    "node port out of range": (EDGE, {"spec.runtime.nodePort": 80}),
    "model from nowhere": (EDGE, {"spec.model": {}}),
}


def changed(manifest: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The manifest with the changes made."""
    for path, value in changes.items():
        *way, last = path.split(".")
        part: Any = manifest
        for key in way:
            part = part[int(key)] if isinstance(part, list) else part.setdefault(key, {})
        if value is None:
            del part[last]
        elif isinstance(part, list):
            part[int(last)] = value
        else:
            part[last] = value
    return manifest

"""What something consists of: an ML-BOM in CycloneDX (https://cyclonedx.org/capabilities/mlbom/, specification 1.6).

The library has no model card yet; it is part of the specification since 1.5 and is added here, and the whole is checked
against the schema in the tests.
"""

import json
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from slmkit.facts import Facts
from slmkit.provenance import HUB, OCI
from slmops.contract import ADAPTER_TYPE, DATASET_TYPE, Artifact

MEDIA_TYPE = "application/vnd.cyclonedx+json"
LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "numpy", "olive-ai", "onnxruntime-genai",
             "onnxruntime", "compressed-tensors")  # fmt: skip
"""What shapes weights besides our own code, where it is installed."""
DATA = ("train", "validation", "data", "evaluation", "baseTask", "calibration")
SELF = "self"


def bom(made: Artifact, facts: Facts, when: datetime) -> bytes:
    """The bill of materials of something published, as JSON."""
    name, _, digest = made.reference.partition("@")
    kind = ComponentType.DATA if facts.artifact_type == DATASET_TYPE else ComponentType.MACHINE_LEARNING_MODEL
    what = Component(
        name=facts.title, version=digest, type=kind, bom_ref=SELF, purl=_oci(name, digest),
        hashes=[_sha256(digest)],
        licenses=[LicenseExpression(facts.licence)] if facts.licence else None,
        properties=[Property(name=key, value=value) for key, value in facts.annotations().items()],
    )  # fmt: skip
    parts = [_part(role, uri) for role, uri in sorted(facts.inputs.items())] + _libraries()
    if facts.run.image:
        parts.append(_part("image", facts.run.image))
    document = Bom(components=parts)
    document.metadata.component = what
    document.metadata.timestamp = when
    document.register_dependency(what, parts)
    out = json.loads(JsonV1Dot6(document).output_as_string())
    if kind is ComponentType.MACHINE_LEARNING_MODEL:
        out["metadata"]["component"]["modelCard"] = _card(facts)
    return json.dumps(out, sort_keys=True).encode()


def _card(facts: Facts) -> dict[str, Any]:
    """CycloneDX's model card."""
    method = str(facts.configuration.get("method") or "")
    data = [{"ref": _ref(role)} for role in sorted(facts.inputs) if role in DATA]
    metrics = [
        {"type": name, "value": f"{value:.10g}", "slice": role}
        for role in sorted(facts.figures)
        for name, value in facts.measured(role, steady=False).items()
    ]
    parameters = {
        "approach": {"type": "supervised"},
        "task": "text-generation",
        "architectureFamily": "decoder-only transformer",
        **({"modelArchitecture": f"{method} adapter"} if facts.artifact_type == ADAPTER_TYPE else {}),
        **({"datasets": data} if data else {}),
        "inputs": [{"format": "text"}],
        "outputs": [{"format": "text"}],
    }
    return {"modelParameters": parameters} | (
        {"quantitativeAnalysis": {"performanceMetrics": metrics}} if metrics else {}
    )


def _part(role: str, uri: str) -> Component:
    kinds = {"image": ComponentType.CONTAINER} | dict.fromkeys(DATA, ComponentType.DATA)
    kind = kinds.get(role, ComponentType.MACHINE_LEARNING_MODEL)
    place = [Property(name="slmops.dev/uri", value=uri)]
    if match := OCI.fullmatch(uri):
        digest = f"sha256:{match['digest']}"
        return Component(
            name=match["name"].rpartition("/")[2], version=digest, type=kind, bom_ref=_ref(role),
            purl=_oci(match["name"], digest), hashes=[_sha256(digest)], properties=place,
        )  # fmt: skip
    if match := HUB.fullmatch(uri):
        namespace, _, name = match["name"].rpartition("/")
        purl = PackageURL("huggingface", namespace or None, name, match["commit"])
        return Component(name=match["name"], version=match["commit"], type=kind, bom_ref=_ref(role), purl=purl,
                         properties=place)  # fmt: skip
    return Component(name=uri, type=kind, bom_ref=_ref(role), properties=place)


def _libraries() -> list[Component]:
    found = []
    for name in LIBRARIES:
        try:
            found.append(Component(name=name, version=version(name), type=ComponentType.LIBRARY, bom_ref=_ref(name),
                                   purl=PackageURL("pypi", None, name, version(name))))  # fmt: skip
        except PackageNotFoundError:
            continue
    return found


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest.removeprefix("sha256:"))


def _oci(name: str, digest: str) -> PackageURL:
    """A package URL of type oci: the name is the last part, the place a qualifier."""
    return PackageURL("oci", None, name.rpartition("/")[2], digest, {"repository_url": name})


def _ref(role: str) -> str:
    return f"input-{role}"

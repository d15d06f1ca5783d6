"""The examples reach the operator's own parser and plan: what the API server takes, the operator has to understand."""

from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from slmops.kinds import KINDS, refers_to
from slmops.state import Manifest, Observed
from tests.e2e.bad_manifests import CASES, CHANGES, REFUSALS, changed
from tests.unit.builders import DIGEST, NOW, SETTINGS, holds

EXAMPLES = Path(__file__).parents[2] / "crds" / "examples"
FOUND = {
    f"{file.stem}-{manifest['kind']}": manifest
    for file in sorted(EXAMPLES.rglob("*.yaml"))
    for manifest in yaml.safe_load_all(file.read_text())
}
every_example = pytest.mark.parametrize("example", FOUND)


def stored(manifest: Manifest) -> Manifest:
    """An example as the API server has it."""
    return manifest | {"metadata": manifest["metadata"] | {"uid": "uid", "generation": 1}}


def made(kind: str, name: str) -> Manifest:
    """What an example refers to, all done."""
    image = f"registry.example/slm/{name}@{DIGEST}"
    variants = [{"name": v, "phase": "Ready", "reference": image, "precision": v[-4:].upper(),
                 "architecture": "amd64"} for v in ("cpu-int4", "cpu-int8")]  # fmt: skip
    adapters = [{"name": name, "phase": "Ready", "reference": image} for name in ("irrigation", "lessons")]
    status = {"observedGeneration": 1, "artifact": {"reference": image, "size": "1Mi"}, "variants": variants,
              "adapters": adapters,
              "conditions": [{"type": "Succeeded", "status": "True", "reason": "Completed"}]}  # fmt: skip
    return {"kind": kind, "metadata": {"name": name, "generation": 1}, "spec": {}, "status": status}


def conditions(manifest: Manifest, observed: Observed) -> list[Manifest]:
    """What the operator says of a manifest at its first pass."""
    kind = KINDS[manifest["kind"]]
    resource = kind.model.model_validate(manifest)
    plan = kind.plan(resource, observed, SETTINGS, NOW)
    return list(kind.status(resource, observed, plan, NOW).dump()["conditions"])


def test_all_kinds_are_among_the_examples_and_none_has_the_name_of_another() -> None:
    assert {manifest["kind"] for manifest in FOUND.values()} == set(KINDS)
    assert len(FOUND) == sum(text.read_text().count("\nkind: ") for text in EXAMPLES.rglob("*.yaml"))


@every_example
def test_every_field_of_an_example_is_read(example: str) -> None:
    manifest = FOUND[example]
    resource = KINDS[manifest["kind"]].model.model_validate(stored(manifest))
    assert holds(resource.spec.dump(), manifest["spec"])


@every_example
def test_an_example_is_planned_before_anything_that_it_names_is_there(example: str) -> None:
    said = conditions(stored(FOUND[example]), Observed())
    assert [c for c in said if c["status"] == "False" and c["type"] != "Ready"] == []


@every_example
def test_an_example_is_planned_once_all_that_it_names_is_there(example: str) -> None:
    manifest = stored(FOUND[example])
    references = {(kind, name): made(kind, name) for kind, name in refers_to(manifest)}
    said = {c["type"]: (c["status"], c["reason"]) for c in conditions(manifest, Observed(references=references))}
    assert said["Accepted"][0] == "True"
    looks = manifest["kind"] == "EdgeDeployment" and "verify" in manifest["spec"]["model"]
    assert said["InputsResolved"] == (("Unknown", "VerifyingSignature") if looks else ("True", "Resolved"))


def test_an_example_with_a_mistake_is_found_by_the_tests_above() -> None:
    no_data = changed(stored(yaml.safe_load((EXAMPLES / "3-finetune.yaml").read_text())), {"spec.data": None})
    assert ("False", "InvalidSpec") in {(c["status"], c["reason"]) for c in conditions(no_data, Observed())}


# --- bad manifests, as far as they can be looked at without an API server


def test_every_bad_manifest_has_the_words_that_refuse_it_and_no_words_are_left_over() -> None:
    assert {*CASES, *CHANGES} == set(REFUSALS)


@pytest.mark.parametrize("name", CASES)
def test_a_bad_manifest_is_a_change_that_can_be_made_to_an_example(name: str) -> None:
    (kind, called), changes = CASES[name]
    good = next(m for m in FOUND.values() if (m["kind"], m["metadata"]["name"]) == (kind, called))
    assert changed(deepcopy(good), changes) != good

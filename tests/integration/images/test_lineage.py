"""Lineage: annotations, provenance, bill of materials and card say the same, and lead from a model back to its data."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from slmkit import bom, evaluated, licences, provenance
from slmkit.card import card
from slmkit.facts import IMAGE_TYPE, Facts
from slmkit.lineage import made_of, walk
from slmkit.publish import publish
from slmkit.run import Context, RunFailed
from slmops.contract import (
    ADAPTER_TYPE,
    DATASET_TYPE,
    FIGURE_FIELDS,
    MODEL_TYPE,
    Artifact,
    Figures,
    LabelRun,
    Metric,
    Source,
    TrainRun,
)
from slmops.figures import shown
from tests.unit.images.fakeregistry import FakeRegistry, sha256

DIGEST = f"sha256:{'ab' * 32}"
COMMIT = "c0ffee" * 6 + "0000"
BASE = f"hf://org/small-model@{COMMIT}"
DATA = f"oci://registry.example/slm/data@{DIGEST}"
IMAGE = f"registry.example/slmops/trainer@{DIGEST}"
BEGAN, ENDED = datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 1, 13, tzinfo=UTC)
FIGURES = {
    "model": Figures(exact_match=0.875, samples=40, inference_seconds=0.123, peak_memory_bytes=5, weight_bytes=7),
    "baseline": Figures(exact_match=0.25, samples=40),
}
SOURCE = {"source": {"uri": "oci://registry.example/slm/data:v1", "credentials": {"path": "/secrets/token"}},
          "format": "Messages"}  # fmt: skip


def train_run(**fields: Any) -> TrainRun:
    wanted = {"run": "tuned-train-1", "method": "LoRA", "train": SOURCE, "image": IMAGE,
              "annotations": {"slmops.dev/kind": "FineTune", "slmops.dev/name": "farm/tuned"},
              "output": {"repository": "registry.example/slm/tuned"}}  # fmt: skip
    return TrainRun.model_validate(wanted | fields)


def facts(artifact_type: str = MODEL_TYPE, run: Any = None, **fields: Any) -> Facts:
    known: dict[str, Any] = {"inputs": {"base": BASE, "train": DATA}, "figures": FIGURES, "licence": "Apache-2.0"}
    return Facts(run=run or train_run(), artifact_type=artifact_type, **(known | fields))


MADE = Artifact(reference=f"registry.example/slm/tuned@{DIGEST}", size=9)


# --- facts


def test_annotations_name_inputs_configuration_code_and_steady_figures() -> None:
    said = facts().annotations()
    assert said["slmops.dev/input.base"] == BASE
    assert said["slmops.dev/input.train"] == DATA
    assert said["slmops.dev/image"] == IMAGE
    assert said["slmops.dev/metric.ExactMatch"] == "0.875"
    assert said["slmops.dev/metric.WeightBytes"] == "7"
    assert said["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert said["slmops.dev/configuration"].startswith("sha256:")
    assert not any("Time" in key or "Memory" in key for key in said), "what differs from run to run changes no digest"


def test_figures_have_the_names_that_status_and_gates_have() -> None:
    everything = Figures(**dict.fromkeys(FIGURE_FIELDS.values(), 1))
    assert set(FIGURE_FIELDS.values()) == Figures.model_fields.keys() - {"intervals", "correlation"}
    assert set(FIGURE_FIELDS) >= set(Metric)
    told = facts(figures={"model": everything})
    assert list(told.measured(steady=False)) == sorted(shown(everything))
    unsteady = {"InferenceTime", "TimeToFirstToken", "PeakMemory"}
    assert told.measured().keys() == told.measured(steady=False).keys() - unsteady


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"run": "tuned-train-2"}, True),
        ({"output": {"repository": "registry.example/slm/other"}}, True),
        ({"budget": {"gpus": 1}}, True),
        ({"image": ""}, True),
        ({"train": SOURCE | {"source": {"uri": "oci://registry.example/slm/data:v1"}}}, True),
        ({"hyperparameters": {"seed": 7}}, False),
        ({"method": "Full"}, False),
    ],
)
def test_the_configuration_is_what_shapes_the_result(change: dict[str, Any], same: bool) -> None:
    digests = {facts(run=run).configuration_digest for run in (train_run(), train_run(**change))}
    assert len(digests) == (1 if same else 2)


def test_where_secrets_are_mounted_is_published_nowhere() -> None:
    base = {"uri": BASE, "verify": {"key": "/secrets/key"}}
    told = facts(run=train_run(base=base))
    texts = (card(told), json.dumps(told.annotations()), provenance.statement(MADE, told, BEGAN, ENDED).decode(),
             bom.bom(MADE, told, ENDED).decode(), evaluated.report(MADE, told, ENDED).decode())  # fmt: skip
    assert not any("/secrets/" in text for text in texts)


# --- provenance


def test_the_statement_is_about_the_artefact_and_names_what_it_is_made_from() -> None:
    said = json.loads(provenance.statement(MADE, facts(), BEGAN, ENDED))
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["subject"] == [{"name": "registry.example/slm/tuned", "digest": {"sha256": "ab" * 32}}]
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    built, ran = said["predicate"]["buildDefinition"], said["predicate"]["runDetails"]
    assert built["resolvedDependencies"] == [
        {"name": "base", "uri": BASE, "digest": {"gitCommit": COMMIT}},
        {"name": "train", "uri": DATA, "digest": {"sha256": "ab" * 32}},
    ]
    assert built["externalParameters"]["hyperparameters"]["seed"] == 42
    assert built["internalParameters"]["figures"]["model"] == {
        "ExactMatch": 0.875, "InferenceTime": 0.123, "PeakMemory": 5, "Samples": 40, "WeightBytes": 7,
    }  # fmt: skip
    assert ran["builder"]["builderDependencies"] == [{"name": "image", "uri": IMAGE, "digest": {"sha256": "ab" * 32}}]
    assert ran["metadata"]["invocationId"] == "tuned-train-1"
    assert (ran["metadata"]["startedOn"], ran["metadata"]["finishedOn"]) == (
        "2026-03-01T12:00:00Z",
        "2026-03-01T13:00:00Z",
    )


@pytest.mark.parametrize(
    ("address", "algorithm"),
    [("https://example.com/train.jsonl", "sha256"), ("s3://bucket/data", "dirHash"), ("pvc://claim/data", "dirHash")],
)
def test_digests_of_files_and_of_folders_are_told_apart(address: str, algorithm: str) -> None:
    """As in-toto's specification of digests calls them."""
    uri = f"{address}#sha256={'cd' * 32}"
    said = json.loads(provenance.statement(MADE, facts(inputs={"train": uri}), BEGAN, ENDED))
    assert said["predicate"]["buildDefinition"]["resolvedDependencies"] == [
        {"name": "train", "uri": uri, "digest": {algorithm: "cd" * 32}}
    ]


def test_the_digest_in_the_annotation_is_that_of_the_configuration_in_the_statement() -> None:
    said = json.loads(provenance.statement(MADE, facts(), BEGAN, ENDED))
    asked = said["predicate"]["buildDefinition"]["externalParameters"]
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    assert facts().annotations()["slmops.dev/configuration"] == sha256(text.encode())


def test_inputs_are_read_from_a_statement_about_just_this_digest() -> None:
    document = provenance.statement(MADE, facts(), BEGAN, ENDED)
    assert provenance.dependencies(document, DIGEST) == {"base": BASE, "train": DATA}
    with pytest.raises(ValueError, match="not about"):
        provenance.dependencies(document, f"sha256:{'0' * 64}")


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"subject": [{}]}', b'{"predicate": 5}'])
def test_what_is_no_statement_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        provenance.dependencies(document, DIGEST)


# --- bill of materials


@pytest.mark.parametrize("artifact_type", [MODEL_TYPE, ADAPTER_TYPE, DATASET_TYPE, IMAGE_TYPE])
@pytest.mark.parametrize("licence", ["", "Apache-2.0", "LicenseRef-gemma OR MIT"])
def test_the_bill_of_materials_keeps_the_schema_to_the_letter(artifact_type: str, licence: str) -> None:
    inputs = {"base": BASE, "train": DATA, "teacher": "http://teacher:8080/v1 big", "validation": "pvc://claim/x.jsonl"}
    document = bom.bom(MADE, facts(artifact_type, inputs=inputs, licence=licence), ENDED)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document.decode()) is None


def test_the_bill_of_materials_has_the_models_card() -> None:
    said = json.loads(bom.bom(MADE, facts(), ENDED))
    what = said["metadata"]["component"]
    assert (what["type"], what["hashes"]) == ("machine-learning-model", [{"alg": "SHA-256", "content": "ab" * 32}])
    metrics = what["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {"type": "ExactMatch", "value": "0.875", "slice": "model"} in metrics
    assert {"type": "ExactMatch", "value": "0.25", "slice": "baseline"} in metrics
    assert what["modelCard"]["modelParameters"]["datasets"] == [{"ref": "input-train"}]
    parts = {part["bom-ref"]: part for part in said["components"]}
    assert parts["input-base"]["purl"] == f"pkg:huggingface/org/small-model@{COMMIT}"
    assert parts["input-train"]["type"] == "data"
    assert parts["input-image"]["type"] == "container"
    (depends,) = [each["dependsOn"] for each in said["dependencies"] if each["ref"] == "self"]
    assert set(parts) == set(depends)


def test_data_that_a_model_was_calibrated_on_and_what_quantized_it_are_in_the_bill_of_materials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = {
        "olive-ai": "0.13.0",
        "onnxruntime-genai": "0.18.0",
        "onnxruntime": "1.31.1",
        "compressed-tensors": "1",
    }

    def version(name: str) -> str:
        if name not in installed:
            raise bom.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(bom, "version", version)
    quantized = facts(IMAGE_TYPE, inputs={"model": BASE, "calibration": DATA})
    said = json.loads(bom.bom(MADE, quantized, ENDED))
    kinds = {part["bom-ref"]: part["type"] for part in said["components"]}
    assert (kinds["input-calibration"], kinds["input-model"]) == ("data", "machine-learning-model")
    assert said["metadata"]["component"]["modelCard"]["modelParameters"]["datasets"] == [{"ref": "input-calibration"}]
    libraries = {part["name"]: part["version"] for part in said["components"] if part["type"] == "library"}
    assert libraries == installed


# --- card


def front(text: str) -> dict[str, Any]:
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_the_card_has_the_front_matter_that_hubs_read() -> None:
    said = front(card(facts()))
    assert (said["license"], said["library_name"]) == ("apache-2.0", "transformers")
    assert said["pipeline_tag"] == "text-generation"
    assert (said["base_model"], said["base_model_relation"]) == ("org/small-model", "finetune")
    assert said["datasets"] == [DATA]
    (result,) = said["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "ExactMatch", "name": "ExactMatch", "value": 0.875}]
    assert "license" not in front(card(facts(licence=""))), "nobody knows it, and nobody is told another"
    unknown = front(card(facts(licence="LicenseRef-gemma")))
    assert (unknown["license"], unknown["license_name"]) == ("other", "gemma")
    adapter = front(card(facts(ADAPTER_TYPE)))
    assert (adapter["library_name"], adapter["base_model_relation"]) == ("peft", "adapter")


def test_the_card_tells_figures_settings_and_lineage() -> None:
    text = card(facts())
    assert "| ExactMatch | 0.875 | 0.25 |" in text
    assert "| learning_rate | 0.0002 |" in text
    assert facts().configuration_digest in text
    assert IMAGE in text


def test_a_card_holds_nothing_that_differs_from_run_to_run() -> None:
    other = {"model": FIGURES["model"].model_copy(update={"inference_seconds": 9.9, "peak_memory_bytes": 1})}
    again = facts(run=train_run(run="tuned-train-2"), figures=FIGURES | other)
    assert card(again) == card(facts())


def test_an_address_cannot_break_the_card() -> None:
    text = card(facts(inputs={"train": "https://example.com/a|b.jsonl"}))
    assert "| train | https://example.com/a\\|b.jsonl |" in text


# --- from a model to its data, by the registry alone


@pytest.fixture(params=[True, False], ids=["referrers API", "no referrers API"])
def registry(request: pytest.FixtureRequest) -> Iterator[FakeRegistry]:
    with FakeRegistry(referrers=request.param) as server:
        yield server


def published(registry: FakeRegistry, folder: Path, name: str, artifact_type: str, inputs: dict[str, str]) -> Artifact:
    """Something made from these inputs."""
    folder = folder / name
    folder.mkdir(exist_ok=True)
    (folder / "content").write_text(name)
    context = Context(folder)
    context.inputs.update(inputs)
    output = {"output": {"repository": f"{registry.host}/slm/{name}"}}
    run: Any = train_run(**output)
    if artifact_type == DATASET_TYPE:
        run = LabelRun.model_validate({"run": "r", "train": SOURCE, "image": IMAGE} | output)
    figures = {} if artifact_type == DATASET_TYPE else FIGURES
    return publish(registry.client(), run, context, {"content": folder / "content"}, artifact_type, figures)


def chain(registry: FakeRegistry, folder: Path) -> list[str]:
    """Prompts, a data set made from them, a model made from that, an adapter on it: their addresses."""
    prompts = f"oci://{registry.host}/slm/prompts@{registry.artifact('slm/prompts', {'train.jsonl': b'x'})}"
    data = published(registry, folder, "data", DATASET_TYPE, {"train": prompts, "teacher": "http://teacher/v1 big"})
    model = published(registry, folder, "model", MODEL_TYPE, {"train": f"oci://{data.reference}"})
    base = f"oci://{model.reference}"
    adapter = published(registry, folder, "adapter", ADAPTER_TYPE, {"base": base, "train": f"oci://{data.reference}"})
    return [adapter.reference, base, f"oci://{data.reference}", prompts]


def test_one_walks_from_an_adapter_to_the_prompts_by_the_registry_alone(registry: FakeRegistry, tmp_path: Path) -> None:
    adapter, model, data, prompts = chain(registry, tmp_path)
    seen = [(link.depth, link.role, link.uri, link.known) for link in walk(registry.client(), adapter)]
    assert seen == [
        (1, "base", model, False),
        (2, "train", data, False),
        (3, "teacher", "http://teacher/v1 big", False),
        (3, "train", prompts, False),
        (1, "train", data, True),
    ]


def test_provenance_is_what_is_walked_and_annotations_stand_in_for_it(registry: FakeRegistry, tmp_path: Path) -> None:
    adapter, model, data, _ = chain(registry, tmp_path)
    name, _, digest = adapter.partition("/")[2].partition("@")
    manifest = registry.manifest(name, digest)
    assert made_of(registry.client(), adapter) == {"base": model, "train": data}
    for key in [key for key, (_, said) in registry.manifests.items() if "subject" in json.loads(said)]:
        del registry.manifests[key]
    registry.manifests.pop((name, digest.replace(":", "-")), None)
    assert made_of(registry.client(), adapter) == {"base": model, "train": data}
    assert manifest["annotations"]["slmops.dev/input.base"] == model
    with pytest.raises(RunFailed):
        made_of(registry.client(), f"{registry.host}/slm/nothing@{DIGEST}")


def test_the_licence_of_the_base_goes_with_what_is_made_from_it_and_is_read_again(
    registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(licences, "seen", {BASE: licences.Licence("Apache-2.0", "README.md")})
    made = published(registry, tmp_path, "model", MODEL_TYPE, {"base": BASE, "train": DATA})
    stated = registry.client().annotations(made.reference)[licences.ANNOTATION]
    assert stated == "Apache-2.0"
    registry.client().pull(Source(uri=f"oci://{made.reference}"), tmp_path / "pulled")
    assert licences.find(tmp_path / "pulled", stated).expression == "Apache-2.0"


def test_all_figures_of_what_was_measured_are_in_a_document_that_refers_to_it(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    made = published(registry, tmp_path, "model", MODEL_TYPE, {"base": BASE, "train": DATA})
    [document] = registry.client().referrers(made.reference, evaluated.MEDIA_TYPE)
    said = json.loads(document)
    assert said["subject"] == dict(zip(("name", "digest"), made.reference.split("@"), strict=True))
    assert said["data"] == {"train": DATA}
    assert said["requestedBy"]["slmops.dev/name"] == "farm/tuned"
    assert {role: Figures.model_validate(found) for role, found in said["models"].items()} == FIGURES
    assert said["models"]["model"]["inference_seconds"] == 0.123, "times are in it, as they are not in the artefact"


def test_what_was_not_measured_has_no_evaluation(registry: FakeRegistry, tmp_path: Path) -> None:
    made = published(registry, tmp_path, "data", DATASET_TYPE, {"train": DATA})
    assert registry.client().referrers(made.reference, evaluated.MEDIA_TYPE) == []
    assert len(made.documents) == 2


def test_a_run_reports_which_documents_are_its_own(registry: FakeRegistry, tmp_path: Path) -> None:
    made = published(registry, tmp_path, "model", MODEL_TYPE, {"base": BASE, "train": DATA})
    name, client = made.reference.partition("@")[0], registry.client()
    types = [client.look(f"{name}@{document}")[1]["artifactType"] for document in made.documents]
    assert types == [provenance.MEDIA_TYPE, bom.MEDIA_TYPE, evaluated.MEDIA_TYPE]


def test_the_same_inputs_give_the_same_digest_whenever_they_are_published(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    made = [published(registry, tmp_path, "model", MODEL_TYPE, {"train": DATA}).reference for _ in range(2)]
    assert made[0] == made[1]
    repository, _, digest = made[0].partition("/")[2].partition("@")
    titles = [layer["annotations"]["org.opencontainers.image.title"]
              for layer in registry.manifest(repository, digest)["layers"]]  # fmt: skip
    assert titles == ["README.md", "content"]
    client = registry.client()
    assert len(client.referrers(made[0], bom.MEDIA_TYPE)) == 2, "each run tells of itself"

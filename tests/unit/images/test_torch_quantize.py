"""Whole quantization runs, from a model and data in a registry to the image that is published there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("olive")
pytest.importorskip("onnxruntime_genai")
pytest.importorskip("torchmetrics")

from slm_quantizer.quantize import quantize
from slmkit.run import PERMANENT, Context, RunFailed
from slmops.contract import QuantizeRun, Reason, Report
from tests.unit.images.fakeregistry import FakeRegistry
from tests.unit.images.toys import EXAMPLES, saved


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    """A registry with a small model and data."""
    folder = saved(tmp_path / "toy", hidden_size=128, intermediate_size=256)
    lines = [{"messages": example.messages()} for example in EXAMPLES]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    with FakeRegistry() as found:
        found.artifact("slm/model", {path.name: path.read_bytes() for path in folder.iterdir()})
        found.artifact("slm/data", {"train.jsonl": data})
        yield found


def ran(registry: FakeRegistry, work: Path, context: Context | None = None, **fields: Any) -> Report:
    data = {"source": {"uri": f"oci://{registry.host}/slm/data:latest"}, "format": "Messages"}
    run = QuantizeRun.model_validate({
        "run": "r", "registry": registry.settings, "model": {"uri": f"oci://{registry.host}/slm/model:latest"},
        "name": "barn", "variant": "v", "precision": "INT4", "output": {"repository": f"{registry.host}/slm/made"},
        "calibration": {"data": data, "samples": 8}
        if fields.get("algorithm") in ("GPTQ", "AWQ") or (fields.get("prune") or {}).get("method") == "Wanda" else None,
        "evaluation": {"data": data, "samples": 4, "max_new_tokens": 4,
                       "metrics": ["ExactMatch", "Perplexity", "InferenceTime", "PeakMemory"]},
    } | fields)  # fmt: skip
    work.mkdir()
    return quantize(run, context or Context(work))


def calibrated(registry: FakeRegistry) -> dict[str, Any]:
    """Calibration on the data."""
    return {"data": {"source": {"uri": f"oci://{registry.host}/slm/data:latest"}, "format": "Messages"}, "samples": 8}


def files(registry: FakeRegistry, report: Report) -> dict[str, str]:
    """Annotations of the image that was published."""
    digest = report.artifacts["image"].reference.partition("@")[2]
    return dict(registry.manifest("slm/made", digest)["annotations"])


def test_a_calibrated_variant_is_built_measured_and_published(registry: FakeRegistry, tmp_path: Path) -> None:
    made = ran(registry, tmp_path / "work", algorithm="GPTQ")
    assert made.artifacts.keys() == {"image"}
    assert made.verification is not None
    assert (made.verification.loaded_on, made.verification.prompts) == ("CPU", 8)
    assert made.verification.similarity > 0.9
    assert made.evaluation.keys() == {"model", "reference"}
    model, reference = made.evaluation["model"], made.evaluation["reference"]
    assert (model.samples, model.inference_seconds is None) == (4, False)
    assert (model.weight_bytes or 0) < 0.5 * (reference.weight_bytes or 0)
    assert files(registry, made)["slmops.dev/format"] == "ONNX"


def test_a_variant_in_safetensors_is_measured_in_pytorch(registry: FakeRegistry, tmp_path: Path) -> None:
    made = ran(registry, tmp_path / "work", algorithm="AWQ", format="Safetensors")
    model, reference = made.evaluation["model"], made.evaluation["reference"]
    assert model.perplexity == pytest.approx(reference.perplexity, rel=0.2)
    assert (model.weight_bytes or 0) < 0.5 * (reference.weight_bytes or 0)
    assert files(registry, made)["slmops.dev/format"] == "Safetensors"


def test_of_a_variant_for_a_gpu_nothing_is_timed(registry: FakeRegistry, tmp_path: Path) -> None:
    made = ran(registry, tmp_path / "work", precision="FP16", device="CUDA")
    model, reference = made.evaluation["model"], made.evaluation["reference"]
    assert model.perplexity == pytest.approx(reference.perplexity, rel=0.01)
    for found in (model, reference):
        assert (found.inference_seconds, found.peak_memory_bytes) == (None, None)


class Noted(Context):
    """Remembers the stages and where each was on the course."""

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self.seen: list[tuple[str, int]] = []

    def stage(self, name: str, of: int = 0, done: int = 0) -> None:
        super().stage(name, of, done)
        self.seen.append((name, self.progress.part))


@pytest.mark.parametrize(
    "fields",
    [
        {"algorithm": "GPTQ", "prune": {"structure": "2:4"}},
        {"format": "Safetensors", "algorithm": "AWQ"},
        {"format": "Safetensors", "precision": "FP16", "evaluation": None},
        {"precision": "FP32"},
    ],
    ids=str,
)
def test_a_run_knows_all_of_its_stages_beforehand(
    registry: FakeRegistry, tmp_path: Path, fields: dict[str, Any]
) -> None:
    context = Noted(tmp_path / "work")
    ran(registry, tmp_path / "work", context, **fields)
    assert [part for _, part in context.seen] == list(range(1, context.progress.parts + 1)), context.seen
    assert context.progress.job_share == 1


def test_what_is_pruned_is_compared_with_the_model_that_has_all_of_its_weights(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    made = ran(registry, tmp_path / "work", precision="FP32", prune={"method": "Wanda", "sparsity": 0.5})
    assert made.pruned is not None
    assert made.pruned.sparsity == pytest.approx(0.5, abs=0.001)
    assert made.pruned.packed_bytes < 0.9 * made.pruned.dense_packed_bytes
    assert made.verification is not None
    assert made.verification.greedy_agreement == 1, "it is what the pruned model is"
    model, reference = made.evaluation["model"], made.evaluation["reference"]
    assert model.perplexity != reference.perplexity
    assert model.parameters == reference.parameters, "zeros are weights, too"
    assert float(files(registry, made)["slmops.dev/sparsity"]) == pytest.approx(0.5, abs=0.001)


def test_calibration_records_that_are_all_too_long_are_told(registry: FakeRegistry, tmp_path: Path) -> None:
    source = {"uri": f"oci://{registry.host}/slm/data:latest"}
    calibration = {"data": {"source": source, "format": "Messages"}, "samples": 5, "max_sequence_length": 3}
    with pytest.raises(RunFailed, match=r"5 of 5 are longer than calibration.maxSequenceLength 3") as failed:
        ran(registry, tmp_path / "work", algorithm="GPTQ", calibration=calibration)
    assert failed.value.reason is Reason.INVALID_DATA


def without(*names: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        for name in names:
            del files[name]

    return change


def settled(file: str, **values: Any) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files[file] = json.dumps(json.loads(files[file]) | values).encode()

    return change


def sentencepiece(files: dict[str, bytes]) -> None:
    del files["tokenizer.json"]
    files["tokenizer.model"] = b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("config.json"), "config.json of the model cannot be read"),
        (settled("config.json", model_type="no-such-model"), "no-such-model"),
        (settled("config.json", num_hidden_layers="two"), "config.json of the model cannot be read"),
        (settled("config.json", model_type="vit"), "models of type vit do not go on with a text"),
        (without("tokenizer.json"), "the model has no tokenizer: there is no tokenizer.json"),
        (without("model.safetensors"), "the model has no weights"),
        (sentencepiece, "tokenizer.model alone is not read"),
        (without("chat_template.jinja"), "which writes the records of spec.calibration and spec.evaluation.data: add"),
    ],
    ids=["no config", "unknown type", "no number", "images", "no tokenizer", "no weights", "sentencepiece",
         "no template"],
)  # fmt: skip
@pytest.mark.parametrize("fields", [{}, {"format": "Safetensors", "precision": "FP32"}], ids=["ONNX", "Safetensors"])
def test_a_model_that_cannot_be_read_is_no_defect_and_not_tried_again(
    change: Callable[[dict[str, bytes]], None],
    words: str,
    fields: dict[str, Any],
    registry: FakeRegistry,
    tmp_path: Path,
) -> None:
    files = {path.name: path.read_bytes() for path in (tmp_path / "toy").iterdir()}
    change(files)
    registry.artifact("slm/spoiled", files)
    model = {"uri": f"oci://{registry.host}/slm/spoiled:latest"}
    with pytest.raises(RunFailed) as failed:
        ran(registry, tmp_path / "work", model=model, calibration=calibrated(registry), **fields)
    assert failed.value.reason is Reason.UNSUPPORTED_MODEL
    assert words in failed.value.message
    assert failed.value.reason in PERMANENT


def test_a_model_without_a_chat_template_is_quantized_where_no_record_is_read(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    files = {path.name: path.read_bytes() for path in (tmp_path / "toy").iterdir() if path.suffix != ".jinja"}
    registry.artifact("slm/plain", files)
    model = {"uri": f"oci://{registry.host}/slm/plain:latest"}
    made = ran(registry, tmp_path / "work", model=model, evaluation=None, format="Safetensors", precision="FP32")
    assert made.artifacts.keys() == {"image"}


def test_a_chat_template_that_refuses_a_record_is_told(registry: FakeRegistry, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in (tmp_path / "toy").iterdir()}
    files["chat_template.jinja"] = b"{{ raise_exception('System role not supported') }}"
    registry.artifact("slm/strict", files)
    with pytest.raises(RunFailed, match="does not write a record: System role not supported") as failed:
        ran(registry, tmp_path / "work", model={"uri": f"oci://{registry.host}/slm/strict:latest"})
    assert failed.value.reason is Reason.UNSUPPORTED_MODEL


def test_a_format_that_the_image_lacks_costs_no_download(registry: FakeRegistry, tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as failed:
        ran(registry, tmp_path / "work", format="QNN")
    assert failed.value.reason is Reason.BACKEND_UNAVAILABLE
    assert registry.requests == []

"""Adapters beside a quantized model: each answers as in PyTorch, none of them costs the model alone a bit."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("olive")
pytest.importorskip("onnxruntime_genai")

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Phi3Config, Phi3ForCausalLM

from slm_quantizer import adapters, onnx
from slm_quantizer.likeness import cosine
from slm_quantizer.pack import finish, layers
from slm_quantizer.quantize import quantize
from slm_quantizer.runtimes import GenAI, Said, Torch
from slm_quantizer.verify import look
from slmkit.run import Context, RunFailed
from slmkit.safety import check_runtime_folder
from slmkit.safety.adapters import listed
from slmops.contract import ADAPTER_TYPE, QuantizeRun, Reason, Report, Sink
from tests.unit.images.fakeregistry import FakeRegistry
from tests.unit.images.quantized import PROMPTS, tokens, wish
from tests.unit.images.toys import saved

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("toy") / "model", hidden_size=128, intermediate_size=256)


def learned(
    model: Path, folder: Path, seed: int, modules: Sequence[str] = ALL, size: float = 0.05, **config: Any
) -> Path:
    """An adapter that has learned something."""
    torch.manual_seed(seed)
    fields: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": list(modules),
        "task_type": "CAUSAL_LM",
        **config,
    }
    adapted: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(model), LoraConfig(**fields))
    with torch.no_grad():
        for name, values in adapted.named_parameters():
            if "lora_B" in name:
                values.normal_(std=size)
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module")
def folders(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two that differ in rank, and in what they update."""
    place = tmp_path_factory.mktemp("adapters")
    return {
        "irrigation": learned(model, place / "irrigation", 1),
        "greenhouse": learned(model, place / "greenhouse", 2, ["q_proj", "v_proj", "down_proj"], r=3, lora_alpha=7,
                              rank_pattern={"v_proj": 2}, use_rslora=True),
    }  # fmt: skip


@pytest.fixture(scope="module")
def records(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokens(model, tmp_path_factory.mktemp("records"))


def same(one: Sequence[Said], other: Sequence[Said]) -> bool:
    return all(np.array_equal(a.logits, b.logits) and a.greedy == b.greedy for a, b in zip(one, other, strict=True))


VARIANTS: list[dict[str, Any]] = [
    {"precision": "FP32"}, {"precision": "INT8"}, {"algorithm": "RTN"}, {"algorithm": "RTN", "symmetric": False},
    {"algorithm": "KQuant"}, {"algorithm": "GPTQ"}, {"precision": "FP16", "device": "CUDA"}, {"device": "CUDA"},
]  # fmt: skip


@pytest.mark.parametrize("fields", VARIANTS, ids=lambda fields: "-".join(map(str, fields.values())))
def test_each_adapter_answers_as_in_pytorch_and_the_model_alone_as_without_them(
    model: Path, folders: dict[str, Path], records: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    run = wish(**fields)
    built = onnx.build(model, run, records if run.algorithm == "GPTQ" else None, tmp_path)
    alone = GenAI(onnx.on_cpu(built, tmp_path / "before")).say(PROMPTS, 8)
    for left in (tmp_path / "before").iterdir() if (tmp_path / "before").is_dir() else ():
        left.unlink()  # the door takes no file of two names
    files = adapters.placed(built, adapters.updates(folders), run.device)
    finish(built, run)
    assert listed(built) == files
    tried = onnx.on_cpu(built, tmp_path / "after")
    plain = look(Torch(model), lambda: GenAI(tried), run.precision, PROMPTS)
    bare = GenAI(tried).say(PROMPTS, 8)
    if run.device == "CPU":
        assert same(alone, bare), "not one bit is another"
    else:  # a CPU computes FP16 in 32 bit, and rounds where that pays: in another graph elsewhere
        assert all(cosine(a.logits, b.logits) > 0.9999 for a, b in zip(alone, bare, strict=True))
    similar = adapters.verified(model, tried, folders, files, plain, run.precision, PROMPTS)
    assert similar.keys() == folders.keys()
    least = {"FP32": 0.99999, "FP16": 0.9999, "INT8": 0.999, "INT4": 0.9}[run.precision]
    assert min(similar.values()) > least
    for name, file in files.items():
        other = GenAI(tried, file).say(PROMPTS, 8)
        assert not same(other, alone), f"{name} changes something"


def test_layers_that_the_model_has_packed_are_cut_as_the_graph_has_them(model: Path, tmp_path: Path) -> None:
    """Phi-3 has one layer for queries, keys and values, and one for gate and up; the graph has the first alone."""
    folder = tmp_path / "phi"
    torch.manual_seed(4)
    config = Phi3Config(
        vocab_size=300, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, original_max_position_embeddings=512, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    Phi3ForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(model / name, folder / name)
    given = {"packed": learned(folder, tmp_path / "packed", 1, ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"])}
    run = wish(precision="FP32")
    built = onnx.build(folder, run, None, tmp_path)
    files = adapters.placed(built, adapters.updates(given), "CPU")
    plain = look(Torch(folder), lambda: GenAI(built), "FP32", PROMPTS)
    assert adapters.verified(folder, built, given, files, plain, "FP32", PROMPTS)["packed"] > 0.99999


def test_an_adapter_that_is_taken_for_another_is_found(model: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    """Beside a model in four bits next-token logits alone would not always tell."""
    run = wish()
    built = onnx.build(model, run, None, tmp_path)
    files = adapters.placed(built, adapters.updates(folders), run.device)
    plain = look(Torch(model), lambda: GenAI(built), run.precision, PROMPTS)
    swapped = {"irrigation": files["greenhouse"], "greenhouse": files["irrigation"]}
    with pytest.raises(RunFailed, match="adapter irrigation: ") as failed:
        adapters.verified(model, built, folders, swapped, plain, run.precision, PROMPTS)
    assert failed.value.reason is Reason.VERIFICATION_FAILED


def test_a_faint_adapter_that_is_left_out_is_found(model: Path, tmp_path: Path) -> None:
    """Its logits are nearer to those of the model alone than rounding is."""
    faint = {"faint": learned(model, tmp_path / "faint", 3, size=0.01)}
    run = wish()
    built = onnx.build(model, run, None, tmp_path)
    files = adapters.placed(built, adapters.updates(faint), run.device)
    plain = look(Torch(model), lambda: GenAI(built), run.precision, PROMPTS)
    similar = adapters.verified(model, built, faint, files, plain, run.precision, PROMPTS)
    assert similar["faint"] > 0.9
    none = {name: (update.a, update.b * 0) for name, update in adapters.updates(faint)["faint"].items()}
    adapters.write(files["faint"], {
        f"{layer}.lora_{side}.weight": matrix for layer, (a, b) in none.items() for side, matrix in (("A", a), ("B", b))
    })  # fmt: skip
    with pytest.raises(RunFailed, match="what it changes is"):
        adapters.verified(model, built, faint, files, plain, run.precision, PROMPTS)


def test_the_same_adapter_is_the_same_file(model: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    made = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        built = onnx.build(model, wish(), None, tmp_path / place)
        adapters.placed(built, adapters.updates(folders), "CPU")
        made.append({layer.title: layer.measure().digest for layer in layers(built, "barn")})
    assert made[0] == made[1]


def test_an_adapter_of_another_model_is_refused(model: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    other = saved(tmp_path / "other", hidden_size=64, intermediate_size=96)
    built = onnx.build(other, wish(), None, tmp_path)
    with pytest.raises(RunFailed, match="it is of another model") as failed:
        adapters.placed(built, adapters.updates(folders), "CPU")
    assert failed.value.reason is Reason.ADAPTER_MISMATCH


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"modules": [*ALL, "embed_tokens"]}, "no update of a linear layer"),
        ({"modules": ["lm_head"]}, "lm_head"),
        ({"init_lora_weights": "pissa"}, "pissa"),
    ],
)
def test_what_peft_makes_and_no_graph_has_a_place_for_is_refused(
    model: Path, tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    folder = learned(model, tmp_path / "adapter", 1, **config)
    built = onnx.build(model, wish(), None, tmp_path)
    with pytest.raises(RunFailed) as failed:
        adapters.placed(built, adapters.updates({"x": folder}), "CPU")
    assert failed.value.reason is Reason.ADAPTER_MISMATCH
    assert words in failed.value.message


# --- whole runs


@pytest.fixture
def registry(model: Path, folders: dict[str, Path]) -> Any:
    with FakeRegistry() as found:
        found.artifact("slm/model", {path.name: path.read_bytes() for path in model.iterdir()})
        base = digest(found, "slm/model")
        for name, folder in folders.items():
            publish(found, name, folder, f"oci://{found.host}/slm/model@{base}")
        yield found


def digest(registry: FakeRegistry, name: str) -> str:
    return registry.client().digest_of(f"{registry.host}/{name}:latest")


def publish(registry: FakeRegistry, name: str, folder: Path, base: str) -> None:
    files = {path.name: path for path in folder.iterdir()}
    sink = Sink(repository=f"{registry.host}/slm/{name}")
    made = registry.client().push_artifact(sink, files, ADAPTER_TYPE, {"slmops.dev/input.base": base})
    registry.client().tag(sink, made, "latest")


def ran(registry: FakeRegistry, work: Path, **fields: Any) -> Report:
    run = QuantizeRun.model_validate({
        "run": "r", "registry": registry.settings, "model": {"uri": f"oci://{registry.host}/slm/model:latest"},
        "adapters": {name: {"uri": f"oci://{registry.host}/slm/{name}:latest"} for name in ("greenhouse", "irrigation")},
        "name": "barn", "variant": "v", "precision": "INT4", "output": {"repository": f"{registry.host}/slm/made"},
    } | fields)  # fmt: skip
    work.mkdir()
    context = Context(work)
    return quantize(run, context).model_copy(update={"inputs": context.inputs})


def test_an_image_has_a_layer_for_each_adapter_and_says_where_it_comes_from(
    model: Path, registry: FakeRegistry, tmp_path: Path
) -> None:
    made = ran(registry, tmp_path / "work")
    manifest = registry.manifest("slm/made", made.artifacts["image"].digest)
    found = {layer["annotations"]["org.opencontainers.image.title"]: layer for layer in manifest["layers"]}
    assert list(found) == ["weights", "settings", "adapter.greenhouse", "adapter.irrigation", "adapters", "graph"]
    for name, told in made.adapters.items():
        assert (told.layer, told.size) == (found[f"adapter.{name}"]["digest"], found[f"adapter.{name}"]["size"])
        assert told.similarity is not None
        assert manifest["annotations"][f"slmops.dev/input.adapter.{name}"].endswith(digest(registry, f"slm/{name}"))
    assert made.adapters.keys() == {"greenhouse", "irrigation"}
    folder = tmp_path / "work" / "olive-INT4"
    check_runtime_folder(folder)
    again = learned(model, tmp_path / "again", 9, r=4)
    publish(registry, "irrigation", again, made.inputs["model"])
    other = ran(registry, tmp_path / "second")
    assert other.adapters["greenhouse"] == made.adapters["greenhouse"]
    assert other.adapters["irrigation"].layer != made.adapters["irrigation"].layer
    changed = registry.manifest("slm/made", other.artifacts["image"].digest)["layers"]
    same = {layer["digest"] for layer in changed} & {layer["digest"] for layer in manifest["layers"]}
    assert len(same) == 4, "weights, graph, settings, the other adapter"


def test_an_adapter_that_was_learned_on_another_model_costs_no_conversion(
    registry: FakeRegistry, folders: dict[str, Path], tmp_path: Path
) -> None:
    other = f"oci://{registry.host}/slm/model@sha256:{'0' * 64}"
    publish(registry, "irrigation", folders["irrigation"], other)
    with pytest.raises(RunFailed, match="adapter irrigation: it was learned on ") as failed:
        ran(registry, tmp_path / "work")
    assert failed.value.reason is Reason.ADAPTER_MISMATCH
    assert other in failed.value.message
    assert not (tmp_path / "work" / "olive-INT4").exists()


def test_a_model_is_no_adapter(registry: FakeRegistry, tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as failed:
        ran(registry, tmp_path / "work", adapters={"x": {"uri": f"oci://{registry.host}/slm/model:latest"}})
    assert failed.value.reason is Reason.ADAPTER_MISMATCH
    assert "there is no adapter_config.json" in failed.value.message


def test_an_adapter_that_changes_nothing_is_no_trouble(model: Path, registry: FakeRegistry, tmp_path: Path) -> None:
    nothing = learned(model, tmp_path / "nothing", 5, size=0.0)
    publish(registry, "irrigation", nothing, "")
    config = json.loads((nothing / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert ran(registry, tmp_path / "work").adapters["irrigation"].similarity == pytest.approx(
        ran(registry, tmp_path / "again", adapters={}).verification.similarity, abs=1e-5  # type: ignore[union-attr]
    )  # fmt: skip

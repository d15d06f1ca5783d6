"""The methods: what stays frozen, what learns, what is merged, and that the same seed writes the same bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from slm_trainer.loop import fit
from slm_trainer.model import load_model, save_memory
from slm_trainer.objectives import Objective
from slm_trainer.recipes import RECIPES, adopt, lora
from slm_trainer.recipes.qlora import load_in_4bit
from slm_trainer.train import seed_everything
from slmkit.run import Context, RunFailed
from slmops.contract import Data, ExampleFormat, Lora, Qlora, Reason, Sink, Source, TrainRun
from tests.unit.images.test_torch_loop import records, wanted

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # peft uses what the newest transformers deprecates
TOKENS = torch.tensor([[1, 2, 3, 4, 5]])


def base(folder: Path) -> Path:
    """A tiny model, saved."""
    seed_everything(1)
    config = Qwen2Config(vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True)  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def run(method: str, **fields: Any) -> TrainRun:
    source = Source(uri="oci://registry.example/x:v1")
    return TrainRun.model_validate({
        "run": "x", "method": method, "lora": Lora(rank=4, alpha=8, dropout=0.0),
        "train": Data(source=source, format=ExampleFormat.MESSAGES), "output": Sink(repository="registry.example/x"),
        "hyperparameters": wanted(max_steps=10, learning_rate=0.01), **fields,
    })  # fmt: skip


def trained(folder: Path, work: Path, method: str, seed: int = 5, **fields: Any) -> tuple[Any, Any, Mapping[str, Path]]:
    """(the model that trained, the whole model, the adapter's files)."""
    seed_everything(seed)
    plan = run(method, **fields)
    recipe = RECIPES[method]
    model = recipe.prepare(load_model(folder), folder, plan)
    fit(model, records(), plan.hyperparameters, 0, Objective(), Context())
    with torch.inference_mode():
        said = model(input_ids=TOKENS).logits.clone()
    whole, adapter = recipe.finish(model, folder, work)
    return said, whole, adapter


@pytest.mark.parametrize("method", ["Full", "LoRA", "QLoRA", "DoRA"])
def test_a_method_learns_and_ends_in_a_whole_model_in_full_precision(method: str, tmp_path: Path) -> None:
    folder = base(tmp_path / "base")
    said, whole, adapter = trained(folder, tmp_path, method)
    assert all(p.dtype == torch.float32 for p in whole.parameters())
    with torch.inference_mode():
        merged, before = whole(input_ids=TOKENS).logits, load_model(folder)(input_ids=TOKENS).logits
    # Four bits round the base that is trained against; the merged model has the base's own weights.
    tolerance = 1e-3 if method != "QLoRA" else 0.5
    assert torch.allclose(said, merged, atol=tolerance)
    assert not torch.allclose(before, merged, atol=1e-3)
    assert set(adapter) == (set() if method == "Full" else set(lora.FILES))
    whole.save_pretrained(tmp_path / "whole")
    assert set(load_model(tmp_path / "whole").state_dict()) == set(load_model(folder).state_dict())


@pytest.mark.parametrize("method", ["Full", "LoRA", "QLoRA", "DoRA"])
def test_the_whole_model_ends_its_answers_as_the_base_does(method: str, tmp_path: Path) -> None:
    folder = base(tmp_path / "base")
    named = json.loads((folder / "generation_config.json").read_text()) | {"eos_token_id": [1, 7]}
    (folder / "generation_config.json").write_text(json.dumps(named))
    _, whole, _ = trained(folder, tmp_path, method)
    whole.save_pretrained(tmp_path / "whole")
    assert json.loads((tmp_path / "whole" / "generation_config.json").read_text())["eos_token_id"] == [1, 7]


@pytest.mark.parametrize("method", ["LoRA", "QLoRA", "DoRA"])
def test_the_adapter_beside_the_full_base_is_the_merged_model(method: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file

    folder = base(tmp_path / "base")
    _, whole, adapter = trained(folder, tmp_path, method)
    loaded = PeftModel.from_pretrained(load_model(folder), tmp_path / "adapter")
    with torch.inference_mode():
        assert torch.allclose(loaded(input_ids=TOKENS).logits, whole(input_ids=TOKENS).logits, atol=1e-4)
    names = load_file(adapter["adapter_model.safetensors"])
    assert any("magnitude" in name for name in names) == (method == "DoRA")
    assert all(value.any() for name, value in names.items() if "lora_B" in name), "every update has learned"


@pytest.mark.parametrize("method", ["LoRA", "DoRA"])
def test_the_base_stays_as_it_was(method: str, tmp_path: Path) -> None:
    model = load_model(base(tmp_path / "base"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = RECIPES[method].prepare(model, None, run(method))
    fit(adapted, records(), wanted(max_steps=5), 0, Objective(), Context())
    kept = {
        name.replace(".base_layer", "").removeprefix("base_model.model."): value
        for name, value in adapted.state_dict().items()
    }
    assert sum(torch.equal(kept[name], value) for name, value in before.items() if name in kept) > 10


def test_each_process_of_a_pod_loads_the_base_of_qlora_onto_its_own_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[Any] = []

    def loaded(*_: Any, device_map: Any, **__: Any) -> Any:
        places.append(device_map)
        raise ValueError("no such GPU here")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", loaded)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    with pytest.raises(RunFailed) as failed:
        load_in_4bit(tmp_path, Qlora())
    assert failed.value.reason is Reason.UNSUPPORTED_MODEL
    assert places == [{"": 3}]


@pytest.mark.parametrize("kind", ["NF4", "FP4"])
@pytest.mark.parametrize("double", [True, False])
def test_the_base_of_qlora_takes_about_four_bits_a_weight(kind: str, double: bool, tmp_path: Path) -> None:
    import bitsandbytes as bnb

    folder = base(tmp_path / "base")
    plan = run("QLoRA", qlora={"quant_type": kind, "double_quant": double})
    model = RECIPES["QLoRA"].prepare(load_model(folder), folder, plan)
    layers = [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]
    assert len(layers) == 14, "all linear layers but the head"
    for layer in layers:
        assert layer.weight.dtype == torch.uint8
        assert layer.weight.numel() * 2 == layer.in_features * layer.out_features
        assert layer.weight.quant_state.quant_type == kind.lower()
        assert layer.weight.quant_state.nested is double
    assert [p.dtype for p in model.parameters() if p.requires_grad] == [torch.float32] * 28


def test_a_measurement_between_two_steps_changes_nothing_that_qlora_learns(tmp_path: Path) -> None:
    folder = base(tmp_path / "base")

    def gradients(measured: bool) -> list[torch.Tensor]:
        seed_everything(5)
        model = RECIPES["QLoRA"].prepare(load_model(folder), folder, run("QLoRA"))
        if measured:
            model.eval()
            with torch.inference_mode():
                model(input_ids=TOKENS)
        model.train()
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    undisturbed, disturbed = gradients(False), gradients(True)
    assert len(undisturbed) == 28
    assert all(torch.equal(*pair) for pair in zip(undisturbed, disturbed, strict=True))


def test_qlora_of_a_model_that_is_new_is_refused() -> None:
    with pytest.raises(RunFailed) as failed:
        RECIPES["QLoRA"].prepare(None, None, run("QLoRA"))
    assert failed.value.reason is Reason.INVALID_CONFIGURATION
    assert "QLoRA needs a base" in failed.value.message


@pytest.mark.parametrize("method", ["LoRA", "QLoRA", "DoRA"])
def test_a_layer_that_is_not_there_is_named(method: str, tmp_path: Path) -> None:
    folder = base(tmp_path / "base")
    with pytest.raises(RunFailed) as failed:
        RECIPES[method].prepare(load_model(folder), folder, run(method, lora=Lora(target_modules=("no_such_layer",))))
    assert failed.value.reason is Reason.INVALID_CONFIGURATION
    assert "lora.targetModules" in failed.value.message
    assert "no_such_layer" in failed.value.message


@pytest.mark.parametrize("method", ["Full", "LoRA", "QLoRA", "DoRA"])
def test_the_same_seed_writes_the_same_bytes(method: str, tmp_path: Path) -> None:
    folder = base(tmp_path / "base")

    def written(name: str, seed: int) -> dict[str, bytes]:
        _, whole, adapter = trained(folder, tmp_path / name, method, seed)
        whole.save_pretrained(tmp_path / name / "model")
        files = {path.name: path for path in (tmp_path / name / "model").iterdir()} | dict(adapter)
        return {name: path.read_bytes() for name, path in sorted(files.items())}

    first, again = written("first", 5), written("again", 5)
    assert first == again
    if method == "Full":
        return  # its weights begin as the base has them, and this toy has no dropout: a seed changes the order alone
    assert written("other", 6)["adapter_model.safetensors"] != first["adapter_model.safetensors"]


@pytest.mark.parametrize("method", ["Full", "LoRA", "QLoRA"])
def test_checkpointing_of_gradients_computes_layers_twice_and_changes_no_weight(method: str, tmp_path: Path) -> None:
    folder = base(tmp_path / "base")

    def after(save: bool) -> tuple[dict[str, Any], int]:
        seed_everything(5)
        plan = run(method)
        model = RECIPES[method].prepare(load_model(folder), folder, plan)
        if save:
            save_memory(model)
        calls = []
        mlp = next(module for name, module in model.named_modules() if name.endswith("layers.0.mlp"))
        mlp.register_forward_pre_hook(lambda *_: calls.append(1))
        fit(model, records(16), wanted(max_steps=4, learning_rate=0.01), 0, Objective(), Context())
        return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}, len(calls)

    (plain, once), (saved, twice) = after(False), after(True)
    assert (once, twice) == (4, 8)
    assert all(torch.allclose(plain[name], saved[name], atol=1e-6) for name in plain)


def spoiled(folder: Path, change: Any) -> Path:
    """An adapter whose tensors were changed."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / lora.FILES[1])
    change(tensors)
    save_file(tensors, folder / lora.FILES[1])
    return folder


def test_an_adapter_from_elsewhere_is_adopted_as_it_is(tmp_path: Path) -> None:
    folder = base(tmp_path / "base")
    _, whole, files = trained(folder, tmp_path, "LoRA")
    before = {name: path.read_bytes() for name, path in files.items()}
    model, again = adopt.finish(adopt.prepare(load_model(folder), tmp_path / "adapter"), folder, tmp_path / "again")
    with torch.inference_mode():
        assert torch.allclose(model(input_ids=TOKENS).logits, whole(input_ids=TOKENS).logits, atol=1e-5)
    assert {name: path.read_bytes() for name, path in again.items()} == before


def nothing(tensors: dict[str, Any]) -> None:
    for name in tensors:
        tensors[name] = torch.zeros_like(tensors[name])


def broken(tensors: dict[str, Any]) -> None:
    next(iter(tensors.values()))[0, 0] = float("nan")


def renamed(tensors: dict[str, Any]) -> None:
    tensors["base_model.model.elsewhere.lora_B.weight"] = tensors.pop(next(iter(tensors)))


@pytest.mark.parametrize(
    ("change", "words"),
    [(nothing, "learned nothing"), (broken, "no number"), (renamed, "fit nowhere in the base"),
     (lambda tensors: tensors.update({n: torch.ones(3, 3) for n in tensors}), "does not fit the base")],
)  # fmt: skip
def test_an_adapter_that_does_not_fit_or_learned_nothing_is_refused(change: Any, words: str, tmp_path: Path) -> None:
    folder = base(tmp_path / "base")
    trained(folder, tmp_path, "LoRA")
    with pytest.raises(RunFailed) as failed:
        adopt.prepare(load_model(folder), spoiled(tmp_path / "adapter", change))
    assert failed.value.reason is Reason.ADAPTER_UNUSABLE
    assert words in failed.value.message


@pytest.mark.parametrize("name", lora.FILES)
def test_an_adapter_with_a_file_missing_is_refused(name: str, tmp_path: Path) -> None:
    folder = base(tmp_path / "base")
    trained(folder, tmp_path, "LoRA")
    (tmp_path / "adapter" / name).unlink()
    with pytest.raises(RunFailed) as failed:
        adopt.prepare(load_model(folder), tmp_path / "adapter")
    assert name in failed.value.message

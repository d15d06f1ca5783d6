"""Pruning: which weights become zero, that they stay zero in every form that is built, and what is measured of it."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("olive")
pytest.importorskip("onnxruntime_genai")
pytest.importorskip("compressed_tensors")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from slm_quantizer.effect import Pruning, measured
from slm_quantizer.formats import BACKENDS
from slm_quantizer.pack import finish
from slm_quantizer.passes import Passes
from slm_quantizer.prune import least, pruned
from slm_quantizer.runtimes import Torch
from slm_quantizer.zeros import sparsity
from slmkit.run import Context, RunFailed
from slmops.contract import Prune, QuantizeRun, Reason
from tests.unit.images import quantized
from tests.unit.images.quantized import PROMPTS, alike, lost, tokens
from tests.unit.images.toys import saved

HALF, TWO_OF_FOUR = Prune(sparsity=0.5), Prune(structure="2:4")
WANDA = Prune(method="Wanda", structure="2:4")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("toy") / "model", hidden_size=128, intermediate_size=256)


@pytest.fixture(scope="module")
def records(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a TokenStore."""
    return tokens(model, tmp_path_factory.mktemp("records"))


def wish(**fields: Any) -> QuantizeRun:
    return quantized.wish(**({"prune": HALF} | fields))


def built(lean: Path, run: QuantizeRun, records: Path, work: Path) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    made = BACKENDS[run.format].build(lean, run, records, work)
    finish(made, run)
    return made


# --- which weights


@given(
    st.integers(1, 6), st.integers(1, 6), st.sampled_from(["1:2", "1:4", "2:4", "3:4", "4:8", "6:8"]),
    st.sampled_from(["Magnitude", "Wanda"]), st.integers(0, 2**31),
)  # fmt: skip
@settings(deadline=None)
def test_of_each_m_inputs_exactly_n_stay_and_none_that_is_smaller(
    rows: int, groups: int, structure: str, method: str, seed: int
) -> None:
    keep, of = map(int, structure.split(":"))
    # Few values, so that many are equal.
    importance = torch.randint(0, 4, (rows, groups * of), generator=torch.Generator().manual_seed(seed)).float()
    chosen = least(importance, Prune(method=method, structure=structure))  # type: ignore[arg-type]
    for values, gone in zip(importance.reshape(-1, of), chosen.reshape(-1, of), strict=True):
        assert int(gone.sum()) == of - keep
        assert values[gone].max() <= values[~gone].min()


@given(st.integers(1, 6), st.integers(1, 40), st.floats(0.01, 0.99), st.integers(0, 2**31))
@settings(deadline=None)
def test_a_share_is_taken_of_a_layer_or_of_each_output(rows: int, columns: int, share: float, seed: int) -> None:
    importance = torch.rand((rows, columns), generator=torch.Generator().manual_seed(seed))
    assert int(least(importance, Prune(sparsity=share)).sum()) == round(share * rows * columns)
    for row in least(importance, Prune(method="Wanda", sparsity=share)):
        assert int(row.sum()) == round(share * columns)


def test_magnitude_takes_the_smallest_of_the_layer() -> None:
    weight = torch.tensor([[1.0, -2.0, 0.1, 3.0], [0.2, 5.0, -0.3, 4.0]])
    assert least(weight.abs(), Prune(sparsity=0.375)).tolist() == [
        [False, False, True, False],
        [True, False, True, False],
    ]


def test_inputs_that_are_no_multiple_are_told() -> None:
    with pytest.raises(RunFailed, match="structure 2:4 does not divide 6 inputs of a layer: use sparsity") as failed:
        least(torch.rand(3, 6), TWO_OF_FOUR)
    assert failed.value.reason is Reason.UNSUPPORTED_MODEL


@pytest.mark.parametrize("wanted", [HALF, TWO_OF_FOUR, WANDA, Prune(method="Wanda", sparsity=0.5)])
def test_half_of_each_linear_layer_is_zero_and_nothing_else_is_touched(
    model: Path, records: Path, tmp_path: Path, wanted: Prune
) -> None:
    out = tmp_path / "lean"
    names = pruned(model, wanted, records, out)
    before, after = (load_file(folder / "model.safetensors") for folder in (model, out))
    assert len(names) == 2 * 7
    assert all(".layers." in name and name.endswith("proj.weight") for name in names)
    for name, tensor in after.items():
        if name in names:
            share = 1 - int(tensor.count_nonzero()) / tensor.numel()
            assert share == pytest.approx(0.5, abs=0.001)
            kept = tensor != 0
            assert torch.equal(tensor[kept], before[name][kept].to(tensor.dtype)), "what stays is what it was"
            assert not tensor.signbit()[~kept].any(), "one zero, not two: they would be other bytes"
        else:
            assert torch.equal(tensor, before[name].to(tensor.dtype))
    assert {path.name for path in out.iterdir()} == {path.name for path in model.iterdir()}
    assert sparsity(out, "Safetensors", names) == pytest.approx(0.5, abs=0.001)


def test_the_same_wish_gives_the_same_bytes(model: Path, records: Path, tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        pruned(model, WANDA, records, tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_wanda_needs_records(model: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="Wanda needs calibration data") as failed:
        pruned(model, WANDA, None, tmp_path / "lean")
    assert failed.value.reason is Reason.INVALID_CONFIGURATION


def test_wanda_loses_less_where_some_inputs_are_far_larger(model: Path, records: Path, tmp_path: Path) -> None:
    """As in large models: a few channels carry most."""
    from transformers import AutoModelForCausalLM

    uneven = tmp_path / "uneven"
    Torch(model).tokenizer.save_pretrained(uneven)
    loaded = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        for layer in loaded.model.layers:
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.weight[::16] *= 20
    loaded.save_pretrained(uneven)
    pruned(uneven, Prune(sparsity=0.5), None, tmp_path / "magnitude")
    pruned(uneven, Prune(method="Wanda", sparsity=0.5), records, tmp_path / "wanda")
    assert lost(uneven, tmp_path / "wanda", records) < 0.7 * lost(uneven, tmp_path / "magnitude", records)


def test_every_layer_is_told(model: Path, records: Path, tmp_path: Path) -> None:
    context = Context(tmp_path)
    pruned(model, WANDA, records, tmp_path / "lean", Passes(context))
    found = context.progress
    assert (found.stage, found.unit, found.step, found.of) == ("Pruning", "Layers", 2, 2)


# --- what is built


FORMS = [
    {"precision": "FP32"}, {"precision": "INT8"}, {"precision": "FP16", "device": "CUDA"},
    *({"algorithm": algorithm, "symmetric": symmetric} for algorithm in ("RTN", "GPTQ", "AWQ", "KQuant")
      for symmetric in (True, False)),
    *({"format": "Safetensors", "precision": precision} for precision in ("FP32", "FP16", "INT8")),
    *({"format": "Safetensors", "algorithm": algorithm, "symmetric": symmetric} for algorithm in ("RTN", "GPTQ", "AWQ")
      for symmetric in (True, False)),
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_what_is_zero_stays_zero(model: Path, records: Path, tmp_path: Path, form: dict[str, Any]) -> None:
    run, lean = wish(prune=TWO_OF_FOUR, **form), tmp_path / "lean"
    names = pruned(model, TWO_OF_FOUR, None, lean)
    made = built(lean, run, records, tmp_path / "lean-built")
    found = sparsity(made, run.format, names)
    assert found >= 0.5
    assert found < 0.5 + (0.2 if run.precision == "INT4" else 0.01), "some of the rest is rounded to zero, not much"
    dense = sparsity(built(model, run, records, tmp_path / "dense-built"), run.format, names)
    assert dense < found - 0.3


def test_gptq_makes_up_for_what_is_rounded_with_the_weights_that_are_left(
    model: Path, records: Path, tmp_path: Path
) -> None:
    lean = tmp_path / "lean"
    pruned(model, WANDA, records, lean)
    losses = {
        algorithm: lost(lean, built(lean, wish(format="Safetensors", algorithm=algorithm, prune=WANDA), records,
                                    tmp_path / algorithm), records)
        for algorithm in ("RTN", "GPTQ")
    }  # fmt: skip
    assert losses["GPTQ"] < losses["RTN"], losses


@pytest.mark.parametrize("format", ["ONNX", "Safetensors"])
def test_what_has_come_of_it_is_measured(model: Path, records: Path, tmp_path: Path, format: str) -> None:
    run, context = wish(format=format), Context(tmp_path)
    pruning = Pruning(model, tmp_path / "lean", pruned(model, HALF, None, tmp_path / "lean"))
    made = built(pruning.folder, run, records, tmp_path / "built")
    assert alike(pruning.folder, made, BACKENDS[format].load, "INT4").similarity > 0.9
    found = measured(pruning, made, run, PROMPTS, lambda work: built(model, run, records, work), context)
    assert 0.5 <= found.sparsity < 0.7
    assert 0.3 < found.similarity < 0.9999
    assert 0 < found.packed_bytes < 0.97 * found.dense_packed_bytes
    assert not (tmp_path / "dense").exists()


def test_a_conversion_that_fills_what_was_pruned_is_refused(model: Path, records: Path, tmp_path: Path) -> None:
    run = wish(precision="FP32", format="Safetensors")
    pruning = Pruning(model, tmp_path / "lean", pruned(model, HALF, None, tmp_path / "lean"))
    with pytest.raises(
        RunFailed, match=r"filled what was pruned: 0.0% of those weights are zero, 50.0% were"
    ) as failed:
        measured(pruning, model, run, PROMPTS, lambda work: work, Context(tmp_path))
    assert failed.value.reason is Reason.CONVERSION_FAILED


def test_an_architecture_without_such_layers_is_told(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, GPT2Config

    config = GPT2Config(n_layer=1, n_head=2, n_embd=32, vocab_size=64, n_positions=16)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(RunFailed, match=r"finds no linear layers in this architecture \(gpt2\)") as failed:
        pruned(tmp_path / "gpt2", HALF, None, tmp_path / "lean")
    assert failed.value.reason is Reason.UNSUPPORTED_MODEL

"""Every format, precision and algorithm that the image makes by itself, made for real and tried in its runtime."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("olive")
pytest.importorskip("onnxruntime_genai")
pytest.importorskip("compressed_tensors")

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from slm_quantizer import onnx
from slm_quantizer.awq import _search, awq
from slm_quantizer.formats import BACKENDS
from slm_quantizer.pack import finish, weight_bytes
from slm_quantizer.runtimes import Torch
from slmkit.run import RunFailed
from slmops.contract import QuantizeRun, Reason, Verification
from tests.unit.images.quantized import PROMPTS, alike, lost, tokens, wish
from tests.unit.images.toys import saved

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with channels that matter far more than others, as large models have them."""
    folder = saved(tmp_path_factory.mktemp("toy") / "model", hidden_size=128, intermediate_size=256)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for layer in loaded.model.layers:
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.weight[::16] *= 12
    loaded.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def records(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a TokenStore."""
    return tokens(model, tmp_path_factory.mktemp("records"))


def made(model: Path, run: QuantizeRun, records: Path | None, work: Path) -> tuple[Path, Verification]:
    """(folder, what the last look says)."""
    work.mkdir(parents=True, exist_ok=True)
    backend = BACKENDS[run.format]
    built = backend.build(model, run, records, work)
    finish(built, run)
    tried = onnx.on_cpu(built, work / "on-cpu") if run.format == "ONNX" else built
    return built, alike(model, tried, backend.load, run.precision)


@pytest.mark.parametrize("algorithm", ["RTN", "KQuant", "GPTQ", "AWQ"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_onnx_in_four_bits(model: Path, records: Path, tmp_path: Path, algorithm: str, symmetric: bool) -> None:
    given = records if algorithm in ("GPTQ", "AWQ") else None
    built, found = made(model, wish(algorithm=algorithm, symmetric=symmetric), given, tmp_path)
    assert found.similarity > 0.9
    assert weight_bytes(built) < 0.5 * weight_bytes(model)
    assert not (tmp_path / "olive-cache").exists()


def test_every_option_of_four_bits_has_an_effect(model: Path, tmp_path: Path) -> None:
    """The builder passes over words that it does not know."""
    plain, small, zeros, mixed = (
        weight_bytes(made(model, wish(**fields), None, tmp_path / str(number))[0])
        for number, fields in enumerate(
            ({"block_size": 64}, {"block_size": 16}, {"block_size": 64, "symmetric": False},
             {"block_size": 64, "algorithm": "KQuant"})
        )
    )  # fmt: skip
    assert small > plain + 10_000, "more scales"
    assert zeros > plain + 1_000, "zero points"
    assert mixed > plain + 10_000, "eight bits for some layers"


@pytest.mark.parametrize(("precision", "least"), [("INT8", 0.999), ("FP32", 0.99999)])
def test_onnx_in_more_bits(model: Path, tmp_path: Path, precision: str, least: float) -> None:
    _, found = made(model, wish(precision=precision), None, tmp_path)
    assert found.similarity > least
    assert precision != "FP32" or found.greedy_agreement == 1


def test_with_embeddings_the_graph_gives_its_hidden_states_and_says_the_same(model: Path, tmp_path: Path) -> None:
    import onnx

    plain, _ = made(model, wish(), None, tmp_path / "plain")
    built, found = made(model, wish(embeddings=True), None, tmp_path / "embeds")
    outputs = [
        {o.name for o in onnx.load(f / "model.onnx", load_external_data=False).graph.output} for f in (plain, built)
    ]
    assert outputs[1] - outputs[0] == {"hidden_states"}
    assert found.similarity > 0.9
    assert weight_bytes(built) < 1.01 * weight_bytes(plain)


@pytest.mark.parametrize("precision", ["FP16", "INT4"])
def test_onnx_for_a_gpu_computes_the_same_on_a_cpu(model: Path, tmp_path: Path, precision: str) -> None:
    built, found = made(model, wish(precision=precision, device="CUDA"), None, tmp_path)
    options = json.loads((built / "genai_config.json").read_text())["model"]["decoder"]["session_options"]
    assert "cuda" in options["provider_options"][0], "what is published is for the GPU"
    assert found.similarity > (0.99999 if precision == "FP16" else 0.9)


@pytest.mark.parametrize("algorithm", ["RTN", "GPTQ", "AWQ"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_compressed_tensors(model: Path, records: Path, tmp_path: Path, algorithm: str, symmetric: bool) -> None:
    run = wish(format="Safetensors", algorithm=algorithm, symmetric=symmetric)
    built, found = made(model, run, records, tmp_path)
    assert found.similarity > 0.9
    config = json.loads((built / "config.json").read_text())["quantization_config"]
    weights = config["config_groups"]["group_0"]["weights"]
    assert (config["quant_method"], config["format"]) == ("compressed-tensors", "pack-quantized")
    assert (weights["num_bits"], weights["group_size"], weights["symmetric"]) == (4, 32, symmetric)
    assert weight_bytes(built) < 0.6 * weight_bytes(model)


@pytest.mark.parametrize(("precision", "least"), [("INT8", 0.999), ("FP16", 0.99999), ("FP32", 0.9999999)])
def test_safetensors_in_more_bits(model: Path, tmp_path: Path, precision: str, least: float) -> None:
    built, found = made(model, wish(format="Safetensors", precision=precision), None, tmp_path)
    assert found.similarity > least
    assert sorted(path.name for path in built.iterdir()) == sorted(path.name for path in model.iterdir())


def test_a_prompt_fits_with_what_follows_it(tmp_path: Path) -> None:
    source = Torch(saved(tmp_path / "short", layers=1, max_position_embeddings=32))
    length = len(source.tokenizer(PROMPTS[0])["input_ids"])
    assert source.fits(PROMPTS[0], 32 - length)
    assert not source.fits(PROMPTS[0], 33 - length)


def test_blocks_that_do_not_fit_are_told(records: Path, tmp_path: Path) -> None:
    odd = saved(tmp_path / "odd", intermediate_size=96)
    for algorithm, block in (("GPTQ", 64), ("AWQ", 64), ("KQuant", 32)):
        with pytest.raises(
            RunFailed, match="blocks of 64 weights do not fill the model's intermediate_size, 96"
        ) as failed:
            made(odd, wish(algorithm=algorithm, block_size=block), records, tmp_path / algorithm)
        assert failed.value.reason is Reason.CONVERSION_FAILED, "the next precision has no such blocks"


def test_weights_beyond_half_precision_are_told(model: Path, tmp_path: Path) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        loaded.model.layers[0].mlp.up_proj.weight[0, 0] = 1e6
    large = tmp_path / "large"
    Torch(model).tokenizer.save_pretrained(large)
    loaded.save_pretrained(large)
    with pytest.raises(RunFailed, match="beyond the range of FP16") as failed:
        made(large, wish(format="Safetensors", precision="FP16"), None, tmp_path)
    assert failed.value.reason is Reason.CONVERSION_FAILED


def test_gptq_loses_less_than_plain_rounding(model: Path, records: Path, tmp_path: Path) -> None:
    losses = {
        algorithm: lost(model, made(model, wish(format="Safetensors", algorithm=algorithm), records,
                                    tmp_path / algorithm)[0], records)
        for algorithm in ("RTN", "GPTQ")
    }  # fmt: skip
    assert losses["GPTQ"] < 0.5 * losses["RTN"], losses


def test_awq_rounds_the_channels_that_are_used_most_finer() -> None:
    from olive.common.quant.utils import WeightQuantizer

    torch.manual_seed(1)
    layer = torch.nn.Linear(128, 64, bias=False)
    torch.nn.init.normal_(layer.weight, std=0.05)
    inputs = torch.randn(256, 128)
    inputs[:, ::16] *= 30
    quantizer = WeightQuantizer(bits=4, symmetric=True, group_size=32)

    def error(scales: torch.Tensor) -> float:
        rounded = quantizer.fake_quantize(layer.weight.detach() * scales) / scales
        return float((inputs @ (rounded - layer.weight).T).square().mean())

    with torch.no_grad():
        scales = _search([layer], inputs.abs().mean(0), inputs.T @ inputs / len(inputs), quantizer)
        assert error(scales) < 0.8 * error(torch.ones(128))


def test_awq_scales_and_computes_the_same(model: Path, records: Path, tmp_path: Path) -> None:
    scaled = awq(model, records, 32, True, tmp_path / "scaled")
    before, after = Torch(model), Torch(scaled)
    assert not torch.equal(
        before.model.model.layers[0].mlp.up_proj.weight, after.model.model.layers[0].mlp.up_proj.weight
    )
    for wanted, found in zip(before.say(PROMPTS, 8), after.say(PROMPTS, 8), strict=True):
        assert found.greedy == wanted.greedy
        assert abs(found.logits - wanted.logits).max() < 1e-3 * abs(wanted.logits).max()


def test_awq_refuses_a_model_that_it_cannot_scale(model: Path, records: Path, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("slm_quantizer.awq.GROUPS", ())
    with pytest.raises(RunFailed, match="use algorithm GPTQ") as failed:
        awq(model, records, 32, True, tmp_path / "scaled")
    assert failed.value.reason is Reason.CONVERSION_FAILED, "the next precision needs no AWQ"


def test_awq_refuses_a_decoder_that_names_its_layers_in_another_way(records: Path, tmp_path: Path) -> None:
    other = tmp_path / "gpt2"
    GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2)).save_pretrained(other)
    with pytest.raises(RunFailed, match=r"cannot scale this architecture \(gpt2\)") as failed:
        awq(other, records, 32, True, tmp_path / "scaled")
    assert failed.value.reason is Reason.CONVERSION_FAILED


def test_a_model_of_which_scaling_makes_another_function_is_refused(
    model: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slm_quantizer.awq.GROUPS", (("input_layernorm", ("mlp.gate_proj", "mlp.up_proj")),))
    with pytest.raises(RunFailed, match="cannot scale this architecture"):
        awq(model, records, 32, True, tmp_path / "scaled")


def test_nothing_is_looked_up_on_the_network(
    model: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def no(*arguments: Any, **named: Any) -> Any:
        asked.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", no)
    monkeypatch.setattr(socket, "getaddrinfo", no)
    for algorithm in ("GPTQ", "AWQ"):
        made(model, wish(algorithm=algorithm), records, tmp_path / algorithm)
    assert asked == []


# --- formats of programs


PROGRAM = """#!/bin/sh
exec python3 - "$1" <<'P'
import json, sys
asked = json.load(open(sys.argv[1]))
if asked["do"] == "build":
    {build}
else:
    open(asked["answer"], "w").write(json.dumps({say}))
P
"""


def program(monkeypatch: pytest.MonkeyPatch, folder: Path, build: str, say: str = "[]") -> None:
    path = folder / "gguf" / "run"
    path.parent.mkdir(parents=True)
    path.write_text(PROGRAM.format(build=build, say=say))
    path.chmod(0o755)
    monkeypatch.setattr("slm_quantizer.external.BACKENDS", folder)


BUILDS = "open(asked['out'] + '/model.gguf', 'w').write(json.dumps(asked)); open(asked['answer'], 'w').write('{}')"


def test_the_program_of_a_format_builds(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from slm_quantizer.formats import backend

    program(monkeypatch, tmp_path / "backends", BUILDS)
    run = wish(format="GGUF", algorithm="KQuant")
    built = backend("GGUF").build(model, run, None, tmp_path)
    told = json.loads((built / "model.gguf").read_text())
    assert (told["model"], told["precision"], told["algorithm"]) == (str(model), "INT4", "KQuant")
    assert (told["block_size"], told["symmetric"]) == (32, True)


def test_the_program_of_a_format_is_verified_as_all_are(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slm_quantizer.formats import backend

    said = Torch(model).say(PROMPTS, 16)
    good = [
        {"tokens": s.tokens, "read_back": s.read_back, "logits": s.logits.tolist(), "greedy": s.greedy} for s in said
    ]
    for name, wrong, words in (
        ("good", {}, ""),
        ("bad", {"logits": [0.0] * len(good[0]["logits"])}, "similar"),
        ("foreign", {"tokens": [1, 2]}, "another way"),
        ("broken", {"greedy": None}, "does not answer as it should"),
    ):
        program(monkeypatch, tmp_path / name, BUILDS, repr([one | wrong for one in good]))
        load = backend("GGUF").load
        if not words:
            assert alike(model, tmp_path, load, "INT4").similarity == pytest.approx(1)
            continue
        with pytest.raises(RunFailed, match=words) as failed:
            alike(model, tmp_path, load, "INT4")
        assert failed.value.reason is Reason.VERIFICATION_FAILED


@pytest.mark.parametrize(
    ("build", "words"),
    [
        ("sys.exit('unknown architecture')", "unknown architecture"),
        ("pass", "the tool chain of GGUF failed"),
        ("open(asked['answer'], 'w').write('{}')", "made nothing"),
        (
            "open(asked['out'] + '/model.gguf', 'w').write('x'); open(asked['answer'], 'w').write('{')",
            "what is no JSON",
        ),
        ("print('reading'); print('out of range', file=sys.stderr); print(); sys.exit(2)", "failed: out of range"),
    ],
)
def test_a_program_that_makes_nothing_has_failed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str, words: str
) -> None:
    from slm_quantizer.formats import backend

    program(monkeypatch, tmp_path / "backends", build)
    with pytest.raises(RunFailed, match=words) as failed:
        backend("GGUF").build(model, wish(format="GGUF"), None, tmp_path)
    assert failed.value.reason is Reason.CONVERSION_FAILED


def test_all_that_a_program_prints_is_in_the_log(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from slm_quantizer.formats import backend

    program(monkeypatch, tmp_path / "backends", "print('layer 1'); print('layer 2', file=sys.stderr); " + BUILDS)
    backend("GGUF").build(model, wish(format="GGUF"), None, tmp_path)
    logged = capfd.readouterr().err
    assert "layer 1" in logged
    assert "layer 2" in logged


def test_a_format_without_a_program_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from slm_quantizer.formats import backend

    monkeypatch.setattr("slm_quantizer.external.BACKENDS", tmp_path)
    with pytest.raises(RunFailed, match="no tool chain for TFLite") as failed:
        backend("TFLite")
    assert failed.value.reason is Reason.BACKEND_UNAVAILABLE

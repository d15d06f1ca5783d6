"""AWQ: activation-aware weight quantization (Lin et al., arXiv 2306.00978), as a model that computes the same function.

Channels with large activations matter most. Their weights are scaled up before rounding, and what comes before them is
scaled down, so that the model stays what it is while rounding costs it less. The share of scaling, alpha, is searched for
each group of layers that read the same input, by the error of the group's outputs on calibration data. That error needs
only the inputs' second moments, so records are seen once, a layer at a time.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from slm_quantizer.gptq import check_blocks
from slm_quantizer.layerwise import States, first_inputs, through
from slm_quantizer.passes import QUIET, Passes, converting
from slm_quantizer.source import load
from slm_trainer.store import TokenStore
from slmkit.run import RunFailed
from slmops.contract import Reason

STEPS = 20
"""Values of alpha that are tried: 0, 1/20, … 19/20."""
SAME = 1e-3
"""Largest share by which logits may move: the scaled model is the same function, but for rounding in 32 bit."""
GROUPS = (
    ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    ("input_layernorm", ("self_attn.qkv_proj",)),
    ("self_attn.v_proj", ("self_attn.o_proj",)),
    ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
    ("post_attention_layernorm", ("mlp.gate_up_proj",)),
    ("mlp.up_proj", ("mlp.down_proj",)),
)
"""What comes before, and the layers that read its output; names as transformers has them in decoders of Llama's kind."""


def awq(model: Path, records: Path, block: int, symmetric: bool, out: Path, passes: Passes = QUIET) -> Path:
    """Write the scaled model to the folder ``out``. ``block``: weights that will share a scale.

    Raises RunFailed, ConversionFailed, where layers are not named as in GROUPS or the result would be another function:
    other algorithms and precisions do not mind."""
    from olive.common.quant.utils import WeightQuantizer

    check_blocks(model, block)
    store = TokenStore(records)
    loaded = load(model)
    layers = getattr(loaded.get_decoder(), "layers", ())
    if not len(layers):
        raise _unknown(loaded)
    quantizer = WeightQuantizer(bits=4, symmetric=symmetric, group_size=block)
    probe = torch.tensor([store[0].tokens])
    with torch.inference_mode():
        before = loaded(input_ids=probe).logits
        found = 0
        states = first_inputs(loaded, store)
        for layer in passes.each(converting("AWQ"), layers):
            groups = list(_groups(layer))
            moments, states = _watch(layer, groups, states)
            for (previous, linears), (mean, square) in zip(groups, moments, strict=True):
                scales = _search(linears, mean, square, quantizer)
                _fold(previous, linears, scales)
                found += 1
        moved = float((loaded(input_ids=probe).logits - before).abs().max() / before.abs().max())
    if not found or not moved <= SAME:
        raise _unknown(loaded)
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json"))
    loaded.save_pretrained(out)
    return out


def _unknown(loaded: Any) -> RunFailed:
    text = f"AWQ cannot scale this architecture ({loaded.config.model_type}): use algorithm GPTQ, KQuant or RTN"
    return RunFailed(Reason.CONVERSION_FAILED, text)


def _groups(layer: torch.nn.Module) -> Iterator[tuple[Any, list[Any]]]:
    """(what comes before, the linear layers that read it) of a decoder layer."""
    parts = dict(layer.named_modules())
    for before, names in GROUPS:
        if before not in parts or any(name not in parts for name in names):
            continue
        previous, linears = parts[before], [parts[name] for name in names]
        if previous.weight.shape[0] == linears[0].in_features:  # not where heads share a value: grouped-query attention
            yield previous, linears


def _watch(
    layer: Any, groups: Sequence[tuple[Any, list[Any]]], states: States
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], States]:
    """(mean magnitude of each channel, second moments) of each group's input over all tokens; and the layer's outputs."""
    sums: list[list[Any]] = [[0.0, 0.0] for _ in groups]

    def add(index: int) -> Callable[[torch.Tensor], None]:
        def look(rows: torch.Tensor) -> None:
            sums[index][0] += rows.abs().sum(0)
            sums[index][1] += rows.T @ rows

        return look

    outputs = through(layer, states, {linears[0]: add(index) for index, (_, linears) in enumerate(groups)})
    tokens = sum(hidden.shape[0] * hidden.shape[1] for hidden, _ in states)
    return [(mean / tokens, square / tokens) for mean, square in sums], outputs


def _search(linears: Sequence[Any], mean: torch.Tensor, square: torch.Tensor, quantizer: Any) -> torch.Tensor:
    """The scales of the channels that lose least: sum over the layers of the squared error of their outputs."""
    best, least = torch.ones_like(mean), float("inf")
    for step in range(STEPS):
        scales = mean.clamp(min=1e-4) ** (step / STEPS)
        scales = scales / (scales.max() * scales.min()).sqrt()
        lost = 0.0
        for linear in linears:
            error = quantizer.fake_quantize(linear.weight * scales) / scales - linear.weight
            lost += float(((error @ square) * error).sum())
        if lost < least:
            best, least = scales, lost
    return best


def _fold(previous: Any, linears: Sequence[Any], scales: torch.Tensor) -> None:
    """Scale the inputs of the layers up and what comes before them down."""
    for linear in linears:
        linear.weight.mul_(scales)
    previous.weight.div_(scales if previous.weight.ndim == 1 else scales[:, None])
    if getattr(previous, "bias", None) is not None:
        previous.bias.div_(scales)

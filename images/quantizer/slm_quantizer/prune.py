"""Weights that matter least become zero: in the linear layers of the decoder, before the model is quantized.

Magnitude (Han et al., arXiv 1506.02626) takes those nearest to zero in each layer. Wanda (Sun et al., arXiv 2306.11695)
takes for each output those whose magnitude times the norm of their input is the smallest. It watches a layer on the
records behind layers that are pruned already, so it sees what the pruned model will see.

``N:M`` keeps of each M weights that follow each other in the inputs of one output at most N: 2:4 leaves two of four.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from slm_quantizer.layerwise import States, first_inputs, through
from slm_quantizer.passes import QUIET, Passes
from slm_quantizer.source import load
from slm_trainer.store import TokenStore
from slmkit.run import RunFailed
from slmops.contract import Prune, Reason


def pruned(model: Path, wanted: Prune, records: Path | None, out: Path, passes: Passes = QUIET) -> list[str]:
    """Write the pruned model to the folder ``out``. ``records``: a TokenStore to calibrate with. Returns the names of the
    weights that were pruned. The same model, wish and records give the same bytes.

    Raises RunFailed, UnsupportedModel, where there is no linear layer to prune, or its inputs are no multiple of M."""
    loaded = load(model)
    layers = getattr(loaded.get_decoder(), "layers", ())
    linears = [[part for part in layer.modules() if isinstance(part, torch.nn.Linear)] for layer in layers]
    if not any(linears):
        text = f"compress.prune finds no linear layers in this architecture ({loaded.config.model_type})"
        raise RunFailed(Reason.UNSUPPORTED_MODEL, text)
    watched = wanted.method == "Wanda"
    if watched and records is None:
        raise RunFailed(Reason.INVALID_CONFIGURATION, "Wanda needs calibration data")
    with torch.inference_mode():
        states: States = first_inputs(loaded, TokenStore(records)) if watched and records else []
        for layer, parts in zip(passes.each("Pruning", layers), linears, strict=True):
            norms = _norms(layer, parts, states)
            for linear in parts:
                norm = norms.get(linear)
                importance = linear.weight.abs() if norm is None else linear.weight.abs() * norm
                linear.weight.masked_fill_(least(importance, wanted), 0.0)
            states = through(layer, states)
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json"))
    loaded.save_pretrained(out)
    found = {id(linear.weight) for parts in linears for linear in parts}
    return [name for name, weight in loaded.named_parameters() if id(weight) in found]


def least(importance: torch.Tensor, wanted: Prune) -> torch.Tensor:
    """Which weights of a layer (outputs, inputs) become zero: exactly so many, the first ones of those that are equal."""
    rows, columns = importance.shape
    if wanted.structure is not None:
        keep, of = map(int, wanted.structure.split(":"))
        if columns % of:
            text = (
                f"compress.prune.structure {wanted.structure} does not divide {columns} inputs of a layer: use sparsity"
            )
            raise RunFailed(Reason.UNSUPPORTED_MODEL, text)
        groups, count = importance.reshape(-1, of), of - keep
    else:
        # Wanda compares the weights of one output, and Magnitude those of a whole layer.
        groups = importance if wanted.method == "Wanda" else importance.reshape(1, -1)
        count = round((wanted.sparsity or 0.0) * groups.shape[1])
    chosen = groups.argsort(dim=1, stable=True)[:, :count]
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, chosen, True).reshape(rows, columns)


def _norms(layer: Any, linears: list[Any], states: States) -> Mapping[Any, torch.Tensor]:
    """The norm of each input of the linear layers over all tokens; nothing where there are no records."""
    if not states:
        return {}
    squares: dict[Any, Any] = dict.fromkeys(linears, 0.0)

    def add(linear: Any) -> Callable[[torch.Tensor], None]:
        def look(rows: torch.Tensor) -> None:
            squares[linear] = squares[linear] + rows.square().sum(0)

        return look

    through(layer, states, {linear: add(linear) for linear in linears})
    return {linear: square.sqrt() for linear, square in squares.items() if isinstance(square, torch.Tensor)}

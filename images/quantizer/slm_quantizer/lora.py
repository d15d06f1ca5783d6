"""An adapter in PEFT's layout -> two matrices for each linear layer that it updates, as a graph multiplies with them.

PEFT computes ``x W + (x A) B * alpha / rank`` for a layer. A and B are kept here to the last bit in 32 bit, which holds all
that the file's 16 or 32 bits do; alpha / rank goes into B. What PEFT would compute in any other way is refused.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slmkit.run import RunFailed
from slmkit.safety.weights import tensors
from slmops.contract import Reason

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NAME = re.compile(r"base_model\.model\.(?P<layer>[\w.]+)\.lora_(?P<side>[AB])\.weight")
PLAIN = re.compile(r"[\w.]+")
"""A pattern of PEFT's that is the end of a layer's name and nothing more."""
OTHERWISE = {
    "use_dora": "is of DoRA, which rescales the base's weights, too",
    "modules_to_save": "brings whole layers of its own (modules_to_save)",
    "trainable_token_indices": "brings embeddings of its own (trainable_token_indices)",
    "layer_replication": "repeats layers of the base (layer_replication)",
    "target_parameters": "updates parameters that are no linear layer (target_parameters)",
    "lora_bias": "has biases (lora_bias)",
    "alora_invocation_tokens": "begins in the middle of a text (aLoRA)",
    "use_qalora": "is of QALoRA", "use_bdlora": "is of BD-LoRA", "arrow_config": "is a mixture (Arrow)",
    "kasa_config": "is of KaSA", "monteclora_config": "is of MonteCLoRA",
}  # fmt: skip
"""Settings with which PEFT computes something else."""
BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Of ``init_lora_weights``: those that leave the base as it is."""
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Update:
    """What is added to a linear layer: ``(x a) b``."""

    a: Matrix
    """(inputs, rank)"""
    b: Matrix
    """(rank, outputs), scaled."""


def read(folder: Path, name: str) -> dict[str, Update]:
    """The updates of an adapter by the layers' names in the base. Raises RunFailed, AdapterMismatch, where it is none that
    a graph could take."""
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise mismatch(name, f"there is no {file}: it is no adapter in PEFT's layout")
    config = json.loads((folder / CONFIG).read_bytes())
    _check(config, name)
    sides: dict[str, dict[str, Matrix]] = {}
    for tensor in tensors(folder / WEIGHTS):
        found = NAME.fullmatch(tensor.name)
        if found is None or tensor.dtype not in DTYPES or len(tensor.shape) != 2:
            raise mismatch(name, f"{tensor.name[:128]} is no update of a linear layer; train the linear layers alone")
        matrix = np.frombuffer(tensor.content(), DTYPES[tensor.dtype])
        if tensor.dtype == "BF16":
            matrix = (matrix.astype(np.uint32) << 16).view(np.float32)
        sides.setdefault(found["layer"], {})[found["side"]] = matrix.astype(np.float32).reshape(tensor.shape)
    if not sides:
        raise mismatch(name, "it updates nothing")
    return {layer: _update(layer, pair, config, name) for layer, pair in sorted(sides.items())}


def mismatch(name: str, what: str) -> RunFailed:
    """The refusal of an adapter."""
    return RunFailed(Reason.ADAPTER_MISMATCH, f"adapter {name}: {what}")


def _check(config: Any, name: str) -> None:
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise mismatch(name, "it is not of type LORA")
    for setting, what in OTHERWISE.items():
        if config.get(setting):
            raise mismatch(name, f"it {what}: use plain LoRA, or quantize the merged model")
    if config.get("bias", "none") != "none":
        raise mismatch(name, "it has biases: train with bias none")
    if config.get("init_lora_weights", True) not in BEGINNINGS:
        began = str(config["init_lora_weights"])[:32]
        raise mismatch(name, f"it began with {began}, which changes the base's weights, too: publish it as plain LoRA")


def _update(layer: str, pair: Mapping[str, Matrix], config: Mapping[str, Any], name: str) -> Update:
    if pair.keys() != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1] or not pair["A"].size:
        raise mismatch(name, f"of {layer} it has not both halves of an update")
    rank = pair["A"].shape[0]
    if rank != _of(layer, config, "rank_pattern", "r", name):
        raise mismatch(name, f"of {layer} it has rank {rank}, which is not what {CONFIG} says")
    alpha = _of(layer, config, "alpha_pattern", "lora_alpha", name)
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    with np.errstate(over="ignore", invalid="ignore"):
        update = Update(np.ascontiguousarray(pair["A"].T), np.ascontiguousarray(pair["B"].T * np.float32(scale)))
    if not (np.isfinite(update.a).all() and np.isfinite(update.b).all()):
        raise mismatch(name, f"of {layer} it holds what is no number")
    return update


def _of(layer: str, config: Mapping[str, Any], patterns: str, plain: str, name: str) -> float:
    """A number of one layer. PEFT takes the first pattern that a layer's name ends with."""
    found = config.get(plain)
    told = config.get(patterns)
    for pattern, value in reversed(told.items() if isinstance(told, dict) else ()):
        if not PLAIN.fullmatch(pattern):
            raise mismatch(name, f"{patterns} has {pattern[:64]!r}: write the end of a layer's name, without wildcards")
        if f".{layer}".endswith(f".{pattern}"):
            found = value
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise mismatch(name, f"{plain} in {CONFIG} is no number")
    return found

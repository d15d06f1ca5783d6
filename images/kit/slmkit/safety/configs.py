"""Configuration files: nothing that makes a loader fetch or import code, and no number that no model has."""

from pathlib import Path
from typing import Any

from slmkit.safety.text import read_object, unsafe, walk

CODE = {
    "auto_map": "asks for code of the model's own",
    "auto_mapping": "asks for a Python module of its own (PEFT)",
    "trust_remote_code": "asks for code of the model's own",
    "custom_pipelines": "asks for code of the model's own",
}
KERNELS = {"attn_implementation", "_attn_implementation", "experts_implementation"}
"""With a name of a repository transformers would fetch compiled code from there."""
LARGEST = {
    "num_hidden_layers": 1024, "num_layers": 1024, "n_layer": 1024, "num_attention_heads": 4096,
    "num_key_value_heads": 4096, "num_experts": 4096, "num_local_experts": 4096, "hidden_size": 1 << 17,
    "intermediate_size": 1 << 20, "vocab_size": 1 << 22, "max_position_embeddings": 1 << 27, "r": 1 << 14,
}  # fmt: skip
"""Several times what the largest published models have. A loader sets memory aside for what is written here."""


def check_config(path: Path) -> None:
    """Raise RunFailed for a ``*config.json`` that is no plain description of a model."""
    for _, name, value in walk(read_object(path)):
        if name in CODE and value not in (None, False, {}, []):
            raise unsafe(path, f"{name} {CODE[name]}")
        if name in KERNELS and isinstance(value, str) and "/" in value:
            raise unsafe(path, f"{name} names a repository with code")
        if name in LARGEST and _beyond(value, LARGEST[name]):
            raise unsafe(path, f"{name} is beyond {LARGEST[name]}: no model has that")


def _beyond(value: Any, largest: int) -> bool:
    return isinstance(value, int | float) and not -largest <= value <= largest

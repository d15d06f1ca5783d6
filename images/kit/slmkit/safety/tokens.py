"""Settings of a tokenizer beside ``tokenizer.json``. transformers takes what stands there for arguments of its own, also
for files to open and for a tokenizer or a template instead of those that were looked at: only plain settings are let in.
"""

from pathlib import Path
from typing import Any

from slmkit.safety.text import read_object, unsafe, walk

OF_THE_LOADER = {
    "fast_tokenizer_files", "gguf_file", "init_inputs", "vocab", "merges", "tokenizer_object", "tokenizer_padding",
    "tokenizer_truncation", "_json_padding", "_json_truncation", "_spm_precompiled_charsmap",
}  # fmt: skip
"""Settings that are files or the tokenizer itself."""
NOT_OPENED = {"tokenizer_file", "vocab_file", "added_tokens_file", "special_tokens_map_file", "tokenizer_config_file"}
"""Old tokenizers tell so where they lay on their author's machine; the folder's own files are taken instead."""
NAMED = ("extra_special_tokens", "additional_special_tokens", "model_specific_special_tokens")
"""Settings that may be objects, whose names become the tokenizer's attributes."""
ADDED, IDS = 100_000, 1 << 24
"""Tokens beside the vocabulary; their largest id, up to which transformers may fill the places before it."""
WORD = 256
"""Characters of a special token. A chat template may write it many times."""


def check_tokenizer_config(path: Path) -> None:
    """Raise RunFailed for a ``tokenizer_config.json`` that names files, or holds a tokenizer of its own."""
    content = read_object(path)
    for name, value in content.items():
        own = name in OF_THE_LOADER or (name.endswith("_file") and name not in NOT_OPENED)
        if own and value not in (None, "", [], {}, False):
            raise unsafe(path, f"{name[:64]} names a file, or holds what belongs into tokenizer.json")
        if name.endswith("_token") or name in NAMED:
            _check_token(path, name, value)
    _check_added(path, content.get("added_tokens_decoder"), by_id=True)


def check_special_tokens(path: Path) -> None:
    """Raise RunFailed for a ``special_tokens_map.json`` that has anything else."""
    for name, value in read_object(path).items():
        if not name.endswith(("_token", "_tokens", "_token_id", "_token_ids")):
            raise unsafe(path, f"{name[:64]} is no special token")
        _check_token(path, name, value)


def check_added_tokens(path: Path) -> None:
    """Raise RunFailed for an ``added_tokens.json`` whose tokens are none."""
    _check_added(path, read_object(path), by_id=False)


def _check_token(path: Path, name: str, value: Any) -> None:
    if any(isinstance(part, str) and len(part) > WORD for _, _, part in walk(value)):
        raise unsafe(path, f"{name[:64]} has more than {WORD} characters")
    if name in NAMED and isinstance(value, dict) and not all(key.endswith("_token") for key in value):
        raise unsafe(path, f"{name}: its names end with _token")


def _check_added(path: Path, tokens: Any, *, by_id: bool) -> None:
    if not isinstance(tokens, dict | None) or len(tokens or ()) > ADDED:
        raise unsafe(path, f"added tokens are an object of at most {ADDED}")
    for name, value in (tokens or {}).items():
        number = str(name if by_id else value)
        if not (number.isascii() and number.isdecimal()) or int(number) > IDS:
            raise unsafe(path, f"an added token's id is no number up to {IDS}")
        content = value.get("content") if by_id and isinstance(value, dict) else name
        if not isinstance(content, str) or len(content) > WORD:
            raise unsafe(path, f"an added token is no text of at most {WORD} characters")

"""Tokenizers: ``tokenizer.json`` (Hugging Face's library), and the vocabularies of SentencePiece and tiktoken."""

import re
from pathlib import Path
from typing import Any

from slmkit.safety.patterns import trouble
from slmkit.safety.text import read_object, unsafe, walk

FILE_LIMIT = 128 << 20
"""Bytes; the largest published ones have some 35 million."""
TOKENS, ADDED, WORD = 1 << 22, 100_000, 4096
STEPS, PATTERNS = 64, 64
"""Steps of a normalizer or pre-tokenizer, and regular expressions in all."""
GROWTH = 64
"""How much longer all replacements together may make a text."""
PADDING = 1 << 20
PIECES = b"\x0a"
"""SentencePiece's file is a protocol buffer whose first field is the list of pieces."""
RANKS = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
"""tiktoken's is text: a token in base64 and its rank in each line."""


def check_tokenizer(path: Path) -> None:
    """Raise RunFailed for a ``tokenizer.json`` that would take a machine's time or memory."""
    content = read_object(path, FILE_LIMIT)
    _check_steps(path, content)
    _check_sizes(path, content)
    patterns, growth = 0, 1.0
    for section in ("normalizer", "pre_tokenizer", "decoder", "post_processor", "model"):
        part = content.get(section)
        for _, name, value in walk({k: v for k, v in part.items() if k not in ("vocab", "merges")}
                                   if isinstance(part, dict) else part):  # fmt: skip
            if name == "Regex" and isinstance(value, str):
                patterns += 1
                if why := trouble(value):
                    raise unsafe(path, f"a pattern of its {section} {why}")
            if isinstance(value, dict) and section != "model":
                growth *= _growth(value)
    if patterns > PATTERNS:
        raise unsafe(path, f"more than {PATTERNS} patterns")
    if growth > GROWTH:
        raise unsafe(path, f"its replacements can make a text more than {GROWTH} times as long")


def _check_steps(path: Path, content: dict[str, Any]) -> None:
    for _, name, value in walk({k: v for k, v in content.items() if k not in ("model", "added_tokens")}):
        limit = {"normalizers": STEPS, "pretokenizers": STEPS, "decoders": STEPS, "processors": STEPS, "single": STEPS,
                 "pair": STEPS}.get(name)  # fmt: skip
        if limit and isinstance(value, list) and len(value) > limit:
            raise unsafe(path, f"{name} has more than {limit} steps")


def _check_sizes(path: Path, content: dict[str, Any]) -> None:
    model = content.get("model")
    added = content.get("added_tokens") or []
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(vocabulary, dict | list) or not isinstance(added, list):
        raise unsafe(path, "not a tokenizer: no model with a vocabulary")
    if len(vocabulary) > TOKENS or len(added) > ADDED:
        raise unsafe(path, f"more than {TOKENS} tokens, or more than {ADDED} added ones")
    for token in added:
        if not isinstance(token, dict) or len(str(token.get("content", ""))) > WORD:
            raise unsafe(path, f"an added token is no object, or longer than {WORD} characters")
    for section in ("padding", "truncation"):
        for _, name, value in walk(content.get(section)):
            if isinstance(value, int | float) and abs(value) > PADDING and name != "pad_id":
                raise unsafe(path, f"{section}.{name} is beyond {PADDING}")


def _growth(step: dict[str, Any]) -> float:
    """How much longer one replacement can make a text."""
    if step.get("type") != "Replace" or not isinstance(step.get("content"), str):
        return 1.0
    pattern = step.get("pattern")
    plain = pattern.get("String") if isinstance(pattern, dict) else None
    least = len(plain) if isinstance(plain, str) and plain else 1
    return max(1.0, len(step["content"]) / least)


def check_vocabulary(path: Path) -> None:
    """Raise RunFailed for a ``tokenizer.model`` that is neither SentencePiece's nor tiktoken's."""
    if path.stat().st_size > FILE_LIMIT:
        raise unsafe(path, f"larger than {FILE_LIMIT} bytes")
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.startswith(PIECES) and not RANKS.match(head):
        raise unsafe(path, "neither a SentencePiece vocabulary nor tiktoken's; pickles and others are not loaded")

"""Tokenizers: ``tokenizer.json`` (Hugging Face's library), and the vocabularies of SentencePiece and tiktoken."""

import base64
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from slmkit.safety import charsmap, pieces
from slmkit.safety.patterns import trouble
from slmkit.safety.text import read_object, unsafe, walk

FILE_LIMIT = 128 << 20
"""Bytes; the largest published ones have some 35 million."""
TOKENS, ADDED, WORD = 1 << 22, 100_000, 4096
STEPS, PATTERNS = 64, 64
"""Steps of a normalizer or pre-tokenizer, and regular expressions in all."""
GROWTH = 64
"""How much longer all replacements together may make a text."""
SHORT = 256
"""Characters of any setting but a pattern."""
AROUND = 256
"""Ids that all templates together put around a text."""
LETTERS = 1000
"""Of a word that WordPiece looks at: it takes as long as their square."""
MERGES = 1 << 28
"""Sum of all tokens' lengths squared: what it takes to find out which pairs they are made of."""
PADDING = 1 << 20
MAYBE_NOTHING = re.compile(r"[*?|^$(]|\{0|\{,|\\[bBAzZGK]")
"""In a pattern that may match between two letters, where every match adds to the text."""
PIECES = b"\x0a"
"""SentencePiece's file is a protocol buffer whose first field is the first of the pieces."""
RANKS = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
"""tiktoken's is text: a token in base64 and its rank in each line."""


def check_tokenizer(path: Path) -> None:
    """Raise RunFailed for a ``tokenizer.json`` that would take a machine's time or memory."""
    content = read_object(path, FILE_LIMIT)
    _check_steps(path, content)
    _check_sizes(path, content)
    patterns, growth, around = 0, 1.0, 0
    for section in ("normalizer", "pre_tokenizer", "decoder", "post_processor", "model"):
        part = content.get(section)
        for _, name, value in walk({k: v for k, v in part.items() if k not in ("vocab", "merges")}
                                   if isinstance(part, dict) else part):  # fmt: skip
            if name == "Regex" and isinstance(value, str):
                patterns += 1
                if why := trouble(value):
                    raise unsafe(path, f"a pattern of its {section} {why}")
            elif name == "precompiled_charsmap":
                _check_charsmap(path, value)
            elif isinstance(value, str) and len(value) > SHORT:
                raise unsafe(path, f"{name[:64]} of its {section} has more than {SHORT} characters")
            if isinstance(value, dict) and section != "model":
                growth *= _growth(value)
                around += _around(value)
    if patterns > PATTERNS:
        raise unsafe(path, f"more than {PATTERNS} patterns")
    if growth > GROWTH:
        raise unsafe(path, f"its replacements can make a text more than {GROWTH} times as long")
    if around > AROUND:
        raise unsafe(path, f"its templates put more than {AROUND} tokens around a text")


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
    _check_words(path, (item if isinstance(item, str) else str(item[0]) if isinstance(item, list) and item else ""
                        for item in vocabulary))  # fmt: skip
    letters = model.get("max_input_chars_per_word")
    if isinstance(letters, int | float) and letters > LETTERS:
        raise unsafe(path, f"max_input_chars_per_word is beyond {LETTERS}")
    for token in added:
        if not isinstance(token, dict) or len(str(token.get("content", ""))) > WORD:
            raise unsafe(path, f"an added token is no object, or longer than {WORD} characters")
    for section in ("padding", "truncation"):
        for _, name, value in walk(content.get(section)):
            if isinstance(value, int | float) and abs(value) > PADDING and name != "pad_id":
                raise unsafe(path, f"{section}.{name} is beyond {PADDING}")


def _check_words(path: Path, words: Iterable[str | bytes]) -> None:
    total = 0
    for number, word in enumerate(words):
        if number >= TOKENS:
            raise unsafe(path, f"more than {TOKENS} tokens")
        if len(word) > WORD:
            raise unsafe(path, f"a token of more than {WORD} characters")
        total += len(word) ** 2
    if total > MERGES:
        raise unsafe(path, "its tokens are too long to be taken apart")


def _check_charsmap(path: Path, value: Any) -> None:
    """A table of SentencePiece's, in base64."""
    if value is None:
        return
    try:
        raw = base64.b64decode(value if isinstance(value, str) else "?", validate=True)
    except ValueError:
        raise unsafe(path, "precompiled_charsmap is no table") from None
    if why := charsmap.trouble(raw):
        raise unsafe(path, f"precompiled_charsmap {why}")


def _growth(step: dict[str, Any]) -> float:
    """How much longer one replacement, or what is put before a text, can make it."""
    kind, content, pattern = step.get("type"), step.get("content"), step.get("pattern")
    if kind == "Prepend" and isinstance(step.get("prepend"), str):
        return 1.0 + len(step["prepend"])
    if kind != "Replace" or not isinstance(content, str):
        return 1.0
    found = pattern if isinstance(pattern, dict) else {}
    plain, regex = found.get("String"), found.get("Regex")
    if plain == "" or (isinstance(regex, str) and (not regex or MAYBE_NOTHING.search(regex))):
        return 1.0 + len(content)
    return max(1.0, len(content) / (len(plain) if isinstance(plain, str) else 1))


def _around(step: dict[str, Any]) -> int:
    """How many ids a template adds: a piece of it is a text or a special token, which is one or several of them."""
    if step.get("type") != "TemplateProcessing":
        return 0
    special = step.get("special_tokens")
    ids = {name: len(token["ids"]) for name, token in (special if isinstance(special, dict) else {}).items()
           if isinstance(token, dict) and isinstance(token.get("ids"), list)}  # fmt: skip
    named = [value for _, name, value in walk([step.get("single"), step.get("pair")]) if name == "id"]
    return sum(ids.get(name, 1) for name in named if isinstance(name, str))


def check_tekken(path: Path) -> None:
    """Raise RunFailed for a ``tekken.json`` (Mistral's) that would take a machine's time or memory. transformers makes a
    tokenizer of it where there is no other."""
    content = read_object(path, FILE_LIMIT)
    config, vocabulary = content.get("config"), content.get("vocab")
    if not isinstance(config, dict) or not isinstance(vocabulary, list) or len(vocabulary) > TOKENS:
        raise unsafe(path, f"not a tokenizer of at most {TOKENS} tokens")
    pattern = config.get("pattern")
    if why := trouble(pattern) if isinstance(pattern, str) else "is no text":
        raise unsafe(path, f"its pattern {why}")
    if any(isinstance(value, int | float) and value > TOKENS for value in config.values()):
        raise unsafe(path, f"a setting is beyond {TOKENS}")
    _check_words(path, (str(item.get("token_bytes", "")) if isinstance(item, dict) else "" for item in vocabulary))


def check_vocabulary(path: Path) -> None:
    """Raise RunFailed for a ``tokenizer.model`` that is neither SentencePiece's nor tiktoken's."""
    if path.stat().st_size > FILE_LIMIT:
        raise unsafe(path, f"larger than {FILE_LIMIT} bytes")
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.startswith(PIECES) and not RANKS.match(head):
        raise unsafe(path, "neither a SentencePiece vocabulary nor tiktoken's; pickles and others are not loaded")
    if head.startswith(PIECES):
        _check_pieces(path)
        return
    with path.open("rb") as file:
        _check_words(path, iter(lambda: file.readline(WORD + 1), b""))


def _check_pieces(path: Path) -> None:
    """A vocabulary of SentencePiece's: as many and as long pieces as of others, and tables that lead nowhere else."""
    tables = []

    def words() -> Iterator[bytes]:
        for kind, content in pieces.parts(path.read_bytes()):
            if kind == pieces.PIECES:
                yield content
            else:
                tables.append(content)

    try:
        _check_words(path, words())
    except ValueError as error:
        raise unsafe(path, f"not a SentencePiece vocabulary: {error}") from None
    for table in tables:
        if why := charsmap.trouble(table):
            raise unsafe(path, f"precompiled_charsmap {why}")

"""JSON of strangers: bounded in bytes, depth and sense."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slmkit.run import RunFailed
from slmops.contract import Reason

CONFIG_LIMIT = 16 << 20
"""Bytes of a configuration file. Indexes of the largest models have a tenth of it."""
DEPTH = 64
DIGITS = 64
"""Of a whole number. Published configurations have up to 31; reading one takes as long as its length squared."""


def unsafe(path: Path, what: str) -> RunFailed:
    """The refusal of a file."""
    return RunFailed(Reason.UNSAFE_SOURCE, f"{path.name}: {what}")


def read_object(path: Path, limit: int = CONFIG_LIMIT) -> dict[str, Any]:
    """A JSON object; no name twice in an object, which readers take differently. Raises RunFailed."""
    content = None
    if path.stat().st_size <= limit:
        try:
            content = parse(path.read_bytes())
        except (ValueError, RecursionError):
            content = None
    if not isinstance(content, dict):
        raise unsafe(path, f"not a JSON object of at most {limit} bytes")
    if any(depth > DEPTH for depth, _, _ in walk(content)):
        raise unsafe(path, f"nested more than {DEPTH} deep")
    return content


def parse(text: bytes) -> Any:
    """JSON in which an object has no name twice and no number is endless. Raises ValueError or RecursionError."""
    return json.loads(text, object_pairs_hook=_once, parse_int=_number)


def walk(value: Any) -> Iterator[tuple[int, str, Any]]:
    """Every value with its depth and its name; items of a list have the list's name. Needs no stack of its own."""
    todo: list[tuple[int, str, Any]] = [(0, "", value)]
    while todo:
        depth, name, part = todo.pop()
        yield depth, name, part
        if isinstance(part, dict):
            todo += [(depth + 1, key, item) for key, item in part.items()]
        elif isinstance(part, list):
            todo += [(depth + 1, name, item) for item in part]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _number(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError("a number without end")
    return int(text)

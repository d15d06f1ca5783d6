"""Which records are held out."""

import hashlib

from slmkit.data import Example


def is_held_out(example: Example, share: float) -> bool:
    """By the hash of the prompt, of a plain text by its own: the same record is always on the same side."""
    content = repr(example.completion if example.plain else example.prompt)
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:4]) / 2**32 < share

"""SentencePiece's table of what letters become: a number, so many bytes of a search tree, and texts, each with a NUL at
its end.

The tree is a double array of Darts-clone (https://github.com/s-yata/darts-clone): units of four bytes in blocks of 256.
Libraries go from unit to unit without looking where the array ends. One in C++ then reads whatever lies behind it, one in
Rust ends the process; so every unit that a text can lead to is looked at here.
"""

import struct
from collections import defaultdict
from collections.abc import Sequence

LIMIT, MAPPED = 3 << 20, 128
"""Bytes of a table (published ones have a twelfth), and of what one letter becomes."""
BLOCK = 256
"""Units: whatever byte comes next, it leads to one of the same block."""
LEAF, FAR, ENDS = 1 << 8, 1 << 9, 1 << 31


def trouble(raw: bytes) -> str:
    """Why a table is refused; empty when it is not."""
    if not raw:
        return ""
    if len(raw) > LIMIT:
        return f"is longer than {LIMIT} bytes"
    size = int.from_bytes(raw[:4], "little")
    tree, texts = raw[4 : 4 + size], raw[4 + size :]
    if not size or len(tree) < size or size % (4 * BLOCK):
        return "has a tree that is none, or does not end where it says"
    try:
        texts.decode()
    except UnicodeDecodeError:
        return "makes what is no text"
    if max(map(len, texts.split(b"\0"))) > MAPPED:
        return f"makes more than {MAPPED} bytes of a letter"
    if not texts.endswith(b"\0"):
        return "has a text without an end"
    return _astray(struct.unpack(f"<{size // 4}I", tree), texts)


def _astray(units: Sequence[int], texts: bytes) -> str:
    """Where a text can lead out of the tree, or out of the texts."""
    children: dict[int, list[int]] = defaultdict(list)
    for at, unit in enumerate(units):
        letter = unit & (ENDS | 0xFF)
        if 0 < letter <= 0xFF:  # it is found by this letter from where the two differ by it
            children[at ^ letter].append(at)
    todo = [0]
    while todo:
        at = todo.pop()
        unit = units[at]
        base = at ^ ((unit >> 10) << (8 if unit & FAR else 0))
        if base >= len(units):
            return "has a tree that leads out of itself"
        if unit & LEAF:
            place = units[base] & ~ENDS
            if place >= len(texts) or texts[place] & 0xC0 == 0x80:
                return "has a tree that leads to no text"
        todo += children.pop(base, ())
    return ""

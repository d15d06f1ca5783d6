"""SentencePiece's formats, written by their descriptions: a table of one letter, a vocabulary of some pieces."""

import struct

ENDS, LEAF = 1 << 31, 1 << 8
TREE = {0: 1 << 10, 0x40: 0x42 << 10 | LEAF | ord("A"), 2: ENDS}
"""Units of a Darts-clone array: from 0 one goes to 1, from there by the letter A to 0x40, from there to 2, whose leaf is
the text at place 0."""


def charsmap(
    tree: dict[int, int] | None = None, texts: bytes = b"B\0", blocks: int = 1, size: int | None = None
) -> bytes:
    """A table; by itself it makes B of A. ``size``: what it says of its tree's length."""
    units = [0] * (256 * blocks)
    for place, unit in (TREE | (tree or {})).items():
        units[place] = unit
    packed = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(packed) if size is None else size) + packed + texts


def number(value: int) -> bytes:
    """A protocol buffer's varint."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + number(rest) if rest else bytes([low])


def field(place: int, content: bytes) -> bytes:
    """A field that holds bytes."""
    return number(place << 3 | 2) + number(len(content)) + content


def piece(text: str) -> bytes:
    """A piece of a vocabulary, with a score and a type."""
    return field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", -1.5) + b"\x18\x02")


def vocabulary(*texts: str, table: bytes = b"", back: bytes = b"", more: bytes = b"") -> bytes:
    """A ModelProto: pieces, how it was trained, a table for texts and one for the way back."""
    trained = field(2, field(1, b"corpus.txt") + b"\x18\x01")
    normal = field(3, field(1, b"nmt_nfkc") + (field(2, table) if table else b"") + b"\x18\x01")
    return b"".join(map(piece, texts)) + trained + normal + (field(5, field(2, back)) if back else b"") + more

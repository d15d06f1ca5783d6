"""SentencePiece's vocabularies, read by the description of their format before any library reads them.

They are protocol buffers (https://protobuf.dev/programming-guides/encoding/) of the message ModelProto
(https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto).
"""

from collections.abc import Iterator

PIECES, NORMALIZERS = 1, (3, 5)
"""Fields of a ModelProto: a piece of the vocabulary; how texts are normalized, and the other way round."""
TEXT, CHARSMAP = 1, 2
"""Fields of a piece, and of a normalizer."""
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
LONGEST = 10
"""Bytes of a number."""


def parts(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(PIECES, its text) of each piece, (CHARSMAP, its bytes) of each table. Raises ValueError where it is no such
    message."""
    for field, part in _fields(content):
        if field == PIECES:
            yield from ((PIECES, text) for inner, text in _fields(part) if inner == TEXT)
        elif field in NORMALIZERS:
            yield from ((CHARSMAP, table) for inner, table in _fields(part) if inner == CHARSMAP)


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields that hold bytes, by number; the others are passed over."""
    at, end = 0, len(content)
    while at < end:
        tag, at = _number(content, at)
        kind = tag & 7
        if kind == BYTES:
            length, at = _number(content, at)
            if length > end - at:
                raise ValueError("a field is longer than what holds it")
            yield tag >> 3, content[at : at + length]
            at += length
        elif kind == VARINT:
            _, at = _number(content, at)
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            at += 8 if kind == EIGHT_BYTES else 4
        else:
            raise ValueError("a field of a kind that is not known")
    if at != end:
        raise ValueError("it ends in the middle of a field")


def _number(content: bytes, at: int) -> tuple[int, int]:
    """A number, seven bits a byte with the lowest first, and where it ends."""
    found = 0
    for index, byte in enumerate(content[at : at + LONGEST]):
        found |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return found, at + index + 1
    raise ValueError("a number without an end")

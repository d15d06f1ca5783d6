"""Protocol Buffers by their wire format (protobuf.dev, "Encoding"), read one field at a time and never as a whole.

A parser that makes objects of what it reads can be fed a few bytes that become gigabytes, or messages in messages without
end. Here nothing is kept: a field is a number or a place in the file, what a message may hold is told by a schema, and
there are only so many fields.
"""

import mmap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

NUMBER, DATA4, DATA8, DATA, TEXT, RAW = "number", "data4", "data8", "data", "text", "raw"
"""Kinds of fields that are no message: a varint; numbers of 4 or 8 bytes, and varints, in great number; a text; bytes."""
WIRE = {NUMBER: 0, DATA8: 1, DATA4: 5, DATA: 0}
SIZES = {1: 8, 5: 4}
SIGN, WORD = 1 << 63, 1 << 64
CHUNK = 1 << 20
HIGH = bytes(range(128, 256))
"""Bytes of a varint that more of it follow."""


class MalformedError(ValueError):
    """It is no message of this kind, or one that no tool writes."""


class Span(NamedTuple):
    """A place in the file."""

    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin


class Field(NamedTuple):
    """What a message has under a number."""

    name: str
    kind: str
    """One of those above, or the name of a message."""
    many: bool = False


Schema = Mapping[str, Mapping[int, Field]]


class Reader:
    """The bytes of a file, and how many fields and bytes of text may still come."""

    def __init__(self, data: "mmap.mmap | bytes", schema: Schema, fields: int, text: int) -> None:
        self._data, self._schema = data, schema
        self._fields, self._most, self._text = fields, fields, text

    def message(self, kind: str, span: Span) -> Iterator[tuple[Field, Any]]:
        """The fields of a message in their order: a number (int) for kind NUMBER, a place (Span) for all others. Raises
        MalformedError, also for a second one of what a message has once: parsers take the last, or join them."""
        known, seen, at = self._schema[kind], 0, span.begin
        while at < span.end:
            self._count(1)
            key, at = self.varint(at, span.end)
            wire, number = key & 7, key >> 3
            field = known.get(number)
            if field is None:
                raise MalformedError(f"{kind} has a field {number}, which is not known")
            if not field.many:
                if seen >> number & 1:
                    raise MalformedError(f"{kind} has {field.name} twice")
                seen |= 1 << number
            if wire == 2:
                size, at = self.varint(at, span.end)
                if size > span.end - at:
                    raise MalformedError(
                        f"{field.name} of {kind} is longer than what it is part of: cut off, or forged"
                    )
                yield from self._long(kind, field, Span(at, at + size))
                at += size
            elif wire != WIRE.get(field.kind):
                raise MalformedError(f"{field.name} of {kind} is of another type")
            elif wire == 0:
                begin = at
                value, at = self.varint(at, span.end)
                yield field, _signed(value) if field.kind == NUMBER else Span(begin, at)
            else:
                if SIZES[wire] > span.end - at:
                    raise MalformedError(f"{field.name} of {kind} is cut off")
                yield field, Span(at, at + SIZES[wire])
                at += SIZES[wire]

    def _long(self, kind: str, field: Field, span: Span) -> Iterator[tuple[Field, Any]]:
        if field.kind == TEXT:
            self._text -= len(span)
            if self._text < 0:
                raise MalformedError("there is too much text")
            yield field, span
        elif field.kind not in WIRE:
            yield field, span
        elif not field.many:
            raise MalformedError(f"{field.name} of {kind} is of another type")
        elif field.kind == NUMBER:
            for value in self.numbers(span):
                yield field, value
        else:
            yield field, span

    def count(self, kind: str, span: Span) -> int:
        """How many numbers of a kind are side by side in a place. Raises MalformedError where one is cut off."""
        if kind == DATA:
            if len(span) and self._data[span.end - 1] > 127:
                raise MalformedError("a number is cut off")
            parts = (self._data[at : min(at + CHUNK, span.end)] for at in range(span.begin, span.end, CHUNK))
            return sum(len(part.translate(None, HIGH)) for part in parts)
        size = SIZES[WIRE[kind]]
        if len(span) % size:
            raise MalformedError("a number is cut off")
        return len(span) // size

    def numbers(self, span: Span) -> Iterator[int]:
        """The signed varints in a place."""
        at = span.begin
        while at < span.end:
            self._count(1)
            value, at = self.varint(at, span.end)
            yield _signed(value)

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """(number of 64 bits, where it ends)."""
        data, value, shift = self._data, 0, 0
        while at < end:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & (WORD - 1), at
            shift += 7
            if shift > 63:
                raise MalformedError("a number of more than ten bytes")
        raise MalformedError("a number is cut off")

    def bytes(self, span: Span) -> bytes:
        """What is in a place."""
        return bytes(self._data[span.begin : span.end])

    def text(self, span: Span) -> str:
        """A text; a name of more than 4096 bytes is none."""
        if len(span) > 4096:
            raise MalformedError("a name of more than 4096 bytes")
        return self.bytes(span).decode("utf-8", "replace")

    def _count(self, number: int) -> None:
        self._fields -= number
        if self._fields < 0:
            raise MalformedError(f"more than {self._most} fields")


def _signed(value: int) -> int:
    return value - WORD if value & SIGN else value

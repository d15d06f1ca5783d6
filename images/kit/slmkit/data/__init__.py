"""Data sets: read one record at a time, whatever their file format; what cannot be used is refused with file, line and
reason. One module a file format, and ``records`` for what a record is."""

from slmkit.data.files import read_examples, write_messages
from slmkit.data.limits import LINE_LIMIT
from slmkit.data.records import Example

__all__ = ["LINE_LIMIT", "Example", "read_examples", "write_messages"]

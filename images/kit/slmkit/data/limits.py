"""Bounds on what is read, so that no file can make a reader take more memory or disk than data need."""

from slmkit.run import RunFailed
from slmops.contract import Reason

LINE_LIMIT = 4 << 20
"""Bytes of one line, one cell, one text."""
UNPACKED_LIMIT = 256 << 30
"""Bytes of one file once it is unpacked."""
RATIO_LIMIT = 500
"""Bytes that a packed byte may become. Text reaches 20, generated records 100."""
RATIO_FREE = 64 << 20
"""Unpacked bytes up to which no ratio is looked at."""
COLUMNS_LIMIT = 10_000


def invalid(where: str, trouble: str) -> RunFailed:
    """What cannot be used: where it is (file, and line or row), and why. Both are bounded: they come from the file."""
    return RunFailed(Reason.INVALID_DATA, f"{shown(where, 200)}: {shown(trouble, 400)}")


def shown(text: str, length: int = 60) -> str:
    """A text of somebody else's as part of a message: printable and short."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text[: length + 1])
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def check_unpacked(where: str, packed: int, unpacked: int) -> None:
    """Refuse what unpacks to far more than it is (a decompression bomb)."""
    if unpacked > UNPACKED_LIMIT:
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{shown(where, 200)}: unpacks to more than {UNPACKED_LIMIT >> 30} GiB")
    if unpacked > RATIO_FREE and unpacked > RATIO_LIMIT * packed:
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{shown(where, 200)}: {packed} bytes unpack to {unpacked} and more, over "
                        f"{RATIO_LIMIT} times as much; publish it without compression if it is real")  # fmt: skip

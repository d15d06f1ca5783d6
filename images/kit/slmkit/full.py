"""A full disk, told from whatever a library raises: those in other languages have an error of their own for it."""

import errno
import re
import shutil
from pathlib import Path

ENDS = (errno.ENOSPC, errno.EDQUOT)
WORDS = re.compile(rf"os error (?:{'|'.join(map(str, ENDS))})\b|No space left on device|Disk quota exceeded")
"""As Rust's libraries (safetensors) say it, and as C's do."""


def full(error: BaseException) -> bool:
    """Whether there was no space left."""
    return (isinstance(error, OSError) and error.errno in ENDS) or WORDS.search(str(error)) is not None


def told(error: BaseException, volume: Path | None, work: Path) -> str:
    """What is full. ``volume``: the one of the run, where it has one. Who names no file has filled the fuller one."""
    name = getattr(error, "filename", None)
    if volume is None:
        ours = False
    elif name:
        ours = Path(str(name)).is_relative_to(volume)
    else:
        ours = shutil.disk_usage(volume).free < shutil.disk_usage(work).free
    return " ".join(filter(None, ("no space left" + (" on run.volume" if ours else "") + ":", str(name or ""))))

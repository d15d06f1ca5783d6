"""Files that a model reads besides itself: plain files of its own folder, and no more of them than they hold."""

import re
import stat
from pathlib import Path, PurePosixPath

from slmkit.safety.onnx.wire import MalformedError

NAME = re.compile(r"\w[\w.+@=-]*", re.ASCII)
"""A part of a file's name. Neither a dot at the beginning nor anything that a loader has a meaning of its own for, as ONNX
Runtime has for ``*/_ORT_MEM_ADDR_/*``: the offset is an address in memory then."""
PARTS = 4
SHARED = 8
"""How many times over the bytes of the files may be used: weights that two layers share are there once."""
PVC = Path("/mnt/pvc")


def inside(folder: Path, name: str) -> Path:
    """The file of a name below a folder. Raises MalformedError unless it is a plain file of its own there.

    A link may only lead into a mounted volume, where ``pvc://`` put it: the volume's own links were looked at. Hard links
    are refused as the ``onnx`` package does since 1.21: nobody can tell what else they are a name of.
    """
    parts = PurePosixPath(name).parts
    if not 0 < len(parts) <= PARTS or "/".join(parts) != name or not all(map(NAME.fullmatch, parts)):
        raise MalformedError(f"{name[:128]!r} is no name of a file in the model's folder")
    path = folder
    for part in parts:
        path /= part
        if path.is_symlink() and not path.resolve().is_relative_to(PVC.resolve()):
            raise MalformedError(f"{name} is a link")
    try:
        found = path.stat()
    except OSError:
        raise MalformedError(f"{name} is not there") from None
    if not stat.S_ISREG(found.st_mode):
        raise MalformedError(f"{name} is no plain file")
    if found.st_nlink > 1:
        raise MalformedError(f"{name} is a hard link")
    return path


class Beside:
    """The data files of one model."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[Path, int] = {}
        """With their sizes in bytes."""
        self._used = 0

    def data(self, told: dict[str, str], need: int) -> tuple[Path, int]:
        """(file, offset) of a tensor's ``need`` bytes. Raises MalformedError where they are not there."""
        if unknown := sorted(told.keys() - {"location", "offset", "length", "checksum"}):
            raise MalformedError(f"external data is described by {unknown[0][:64]!r}, which is not known")
        path = inside(self._folder, told.get("location", ""))
        size = self.files.setdefault(path, path.stat().st_size)
        offset, length = _whole(told.get("offset", "0")), _whole(told.get("length", str(need)))
        if length != need:
            raise MalformedError(f"{length} bytes of external data are not as many as the tensor's shape says, {need}")
        if offset + length > size:
            raise MalformedError(f"{path.name} ends before the external data at {offset}: cut off, or forged")
        self._used += length
        return path, offset

    def check(self) -> None:
        """Raise MalformedError where a few bytes stand for many weights."""
        if self._used > SHARED * sum(self.files.values()):
            raise MalformedError(f"the bytes of its data files are used more than {SHARED} times over")


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise MalformedError(f"{text[:32]!r} is no place in a file of external data")
    return int(text)

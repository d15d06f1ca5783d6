"""A blob on its way in: all of it with the promised digest, or a failure.

A download that breaks off goes on where it was (``Range``), and its digest is counted further. Of a registry that cannot
do that, what is known already is passed over.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from slmkit.access import Access
from slmkit.run import RunFailed
from slmkit.whole import whole
from slmkit.wire import ATTEMPTS, NOTHING, Wire
from slmops.contract import Reason

PIECE = 1 << 20
"""Bytes. An attempt that brings fewer has brought nothing, and is counted."""


def download(wire: Wire, access: Access, digest: str, size: int, path: Path, told: Callable[[int], None]) -> None:
    """Fetch a blob of so many bytes to ``path``; ``told`` hears how many more there are. Raises RunFailed, and no file is
    kept then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as file:
        for piece in pieces(wire, access, digest, size, path.name):
            file.write(piece)
            told(len(piece))


def pieces(wire: Wire, access: Access, digest: str, size: int, name: str) -> Iterator[bytes]:
    """A blob's bytes, each of them once. Raises RunFailed: at the latest after the last one where the digest is
    another."""
    sha, has = hashlib.sha256(), 0
    failures = furthest = 0
    while has < size or not has:
        answer = _ask(wire, access, digest, has, size)
        known = 0 if answer.status_code == 206 else has
        trouble = ""
        try:
            for piece in answer.iter_raw():
                new, known = piece[known:], max(0, known - len(piece))
                has += len(new)
                if has > size:
                    break
                sha.update(new)
                yield new
        except httpx.RequestError as error:
            trouble = f"{type(error).__name__}: {error}"
        finally:
            answer.close()
        if has >= size:
            break
        if has >= furthest + PIECE:
            failures, furthest = 0, has
        failures += 1
        if failures == ATTEMPTS:
            raise access.unreachable(trouble) if trouble else _wrong(access, digest, name)
        wire.pause(failures - 1)
    if has != size or f"sha256:{sha.hexdigest()}" != digest:
        raise _wrong(access, digest, name)


def _ask(wire: Wire, access: Access, digest: str, has: int, size: int) -> httpx.Response:
    """The blob from where it broke off, with status 206, or all of it."""
    # Both ends are named: one registry does not understand a range without an end.
    rest = {"Range": f"bytes={has}-{size - 1}"} if has else NOTHING
    answer = wire.open(access, f"blobs/{digest}", headers=rest, accepted=(416,))
    begins = re.match(rf"bytes {has}-", answer.headers.get("Content-Range", ""))
    if answer.status_code == 416 or (answer.status_code == 206 and not begins):
        answer.close()
        return wire.open(access, f"blobs/{digest}")
    return answer


def _wrong(access: Access, digest: str, name: str) -> RunFailed:
    return RunFailed(Reason.UNSAFE_SOURCE, f"{access}: {name} does not have digest {digest}")

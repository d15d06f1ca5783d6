"""A blob on its way out, by the OCI distribution specification 1.1, "Pushing blobs".

A large one goes in chunks, of which one at a time is in memory. Where a chunk breaks off, the registry is asked how much
of it has arrived, and the rest is sent. Where a registry takes no chunks the blob goes in one request, and where it has
forgotten the upload, once more from the beginning. The digest may be counted on the way: it is asked for at the end.

Registries differ from the specification, and this is allowed for: what the answer to a chunk says of the range is not
looked at, since one registry's lags behind; the last chunk comes with the closing request, since another refuses a
closing request without one; and a range of ``0-0`` means nothing as well as one byte.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import httpx

from slmkit.access import Access
from slmkit.run import RunFailed
from slmkit.wire import ATTEMPTS, RETRIED, Wire

log = logging.getLogger(__name__)
CHUNK = 16 << 20
"""Bytes of a chunk. A smaller blob goes in one request."""
LARGEST = 64 << 20
"""A registry that wants chunks larger than this gets none: a chunk has to be in memory."""
UNAUTHORIZED = (401, 403)
FORGOTTEN = (404, 416)
"""What a registry answers to a chunk that does not continue what it has."""
Told = Callable[[int], None]
"""Who wants to know how many bytes more have gone; a negative number takes some back."""


@dataclass(frozen=True)
class Blob:
    """What is to be sent."""

    size: int
    body: Callable[[], Iterable[bytes]]
    """Its bytes, from the beginning each time."""
    digest: str = ""
    """Where it is empty, the repository cannot have the blob yet."""
    elsewhere: str = ""
    """A repository of the same registry that has it, too."""


class Uploads:
    """All blobs that a run sends."""

    def __init__(self, wire: Wire, told: Told) -> None:
        self._wire, self._told = wire, told
        self._chunkless: set[str] = set()
        """Registries that take no chunks."""

    def there(self, access: Access, digest: str) -> bool:
        """Whether the repository has a blob."""
        return self._wire.request("HEAD", access, f"blobs/{digest}", accepted=(404,)).is_success

    def send(self, access: Access, blob: Blob) -> str:
        """Bring a blob into a repository that does not have it. What fails is tried five times, counted anew whenever the
        registry has more of it than ever before. Returns the digest; raises RunFailed."""
        failures = furthest = 0
        upload = self._begin(access, blob)
        while upload is not None:
            fresh = upload.fresh
            answer, trouble = upload.step()
            if upload.done:
                return upload.digest
            if upload.at > furthest:
                failures, furthest = 0, upload.at
            if answer is not None and answer.is_success:
                continue
            refused = answer is not None and answer.status_code not in RETRIED
            if answer is not None and refused:
                if not upload.in_chunks or answer.status_code in UNAUTHORIZED:
                    raise access.refused(answer)
                if answer.status_code not in FORGOTTEN or fresh:
                    self._chunkless.add(access.host)
            failures += 1
            if failures == ATTEMPTS:
                raise access.unreachable(f"{trouble}, {ATTEMPTS} times")
            log.warning("upload", extra={"repository": str(access), "trouble": trouble, "at": upload.at})
            if not refused:
                self._wire.pause(failures - 1, answer)
            if access.host in self._chunkless or not upload.goes_on(refused):
                upload.drop()
                if upload.digest and self.there(access, upload.digest):  # only the last answer was lost
                    self._told(blob.size)
                    return upload.digest
                upload = self._begin(access, blob)
        self._told(blob.size)
        return blob.digest

    def _begin(self, access: Access, blob: Blob) -> "_Upload | None":
        """A place to send it to; None where the registry has taken it from another repository."""
        path = "blobs/uploads/"
        answer = self._mount(access, blob, path) if blob.elsewhere else None
        if answer is None:
            answer = self._wire.request("POST", access, path, headers={"Content-Length": "0"})
        elif answer.status_code == 201:
            return None
        place = _place(answer)
        if place is None:
            raise access.nonsense("the registry takes an upload and does not say where")
        least = re.fullmatch(r"[0-9]{1,18}", answer.headers.get("OCI-Chunk-Min-Length", ""))
        chunk = max(CHUNK, int(least[0]) if least else 0)
        if chunk > LARGEST or access.host in self._chunkless:
            chunk = blob.size
        return _Upload(self._wire, access, blob, place, chunk, self._told)

    def _mount(self, access: Access, blob: Blob, path: str) -> httpx.Response | None:
        """What a registry says that is asked to take a blob from another repository; None where it does not want to hear
        of that, or lets nobody read there."""
        query = httpx.QueryParams({"mount": blob.digest, "from": blob.elsewhere})
        try:
            return self._wire.request("POST", access.reading(blob.elsewhere), f"{path}?{query}",
                                      headers={"Content-Length": "0"})  # fmt: skip
        except RunFailed as failed:
            log.info("not mounted", extra={"repository": str(access), "trouble": failed.message})
            return None


class _Upload:
    """An upload that the registry has begun."""

    def __init__(self, wire: Wire, access: Access, blob: Blob, place: httpx.URL, chunk: int, told: Told) -> None:
        self._wire, self._access, self._blob, self._place, self._chunk = wire, access, blob, place, chunk
        self._tell, self._told = told, 0
        self._window = Window(blob.body(), counted=not blob.digest)
        self.digest = blob.digest
        """Empty as long as it is not known."""
        self.in_chunks = chunk < blob.size
        self.at = 0
        """Bytes that the registry has, as far as is known."""
        self.done = False
        self.fresh = True
        """Nothing was sent yet."""

    def step(self) -> tuple[httpx.Response | None, str]:
        """Send the next chunk, the last one with the request that closes the upload. The answer, and what is wrong with
        it."""
        self.fresh = False
        begin, end = self.at, min(self.at + self._chunk, self._blob.size)
        last = end == self._blob.size
        if last and not self.digest:
            self.digest = self._window.digest(end) if self.in_chunks else _digest(self._blob.body())
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(end - begin)}
        if self.in_chunks and end > begin:
            headers["Content-Range"] = f"{begin}-{end - 1}"
        place = self._place.copy_merge_params({"digest": self.digest}) if last else self._place
        try:
            answer = self._wire.exchange(
                "PUT" if last else "PATCH", self._access, place, headers=headers,
                body=lambda: self._window.read(begin, end) if self.in_chunks else self._whole(),
            )  # fmt: skip
        except httpx.RequestError as error:
            return None, f"{type(error).__name__}: {error}"
        if answer.is_success:
            self._place = _place(answer) or self._place
            self._move(end)
            self.done = last
        return answer, f"answered {answer.status_code}"

    def goes_on(self, refused: bool) -> bool:
        """Ask how far it is. False where only another upload helps: after a chunk that was refused, or none at all."""
        if not self.in_chunks:
            return False
        try:
            said = self._wire.exchange("GET", self._access, self._place)
        except httpx.RequestError:
            return not refused
        known = re.fullmatch(r"0-([0-9]{1,18})", said.headers.get("Range", "")) if said.is_success else None
        has = 0 if known is None or known[1] == "0" else int(known[1]) + 1
        if known is None or not self._window.start <= has <= self._window.end or (refused and has == self.at):
            return not refused  # the same chunk once more, and the registry says whether it fits
        self._place = _place(said) or self._place
        self._move(has)
        return True

    def drop(self) -> None:
        """Nothing of it counts."""
        self._advance(-self._told)

    def _whole(self) -> Iterator[bytes]:
        self.drop()
        for piece in self._blob.body():
            yield piece
            self._advance(len(piece))

    def _move(self, at: int) -> None:
        self.at = at
        self._window.forget(at)
        self._advance(at - self._told)

    def _advance(self, count: int) -> None:
        self._told += count
        if count:
            self._tell(count)


class Window:
    """The bytes of a blob in order, of which those from ``start`` on can be had again."""

    def __init__(self, body: Iterable[bytes], counted: bool = False) -> None:
        self._source = iter(body)
        self._kept: list[bytes] = []
        self._sha = hashlib.sha256() if counted else None
        self.start = self.end = 0

    def read(self, begin: int, end: int) -> Iterator[bytes]:
        """The bytes from ``begin``, which is not before ``start``, to ``end``. New ones are read as they are taken."""
        at = self.start
        for piece in list(self._kept):
            yield from _part(piece, begin - at, end - at)
            at += len(piece)
        while self.end < end and (new := next(self._source, None)) is not None:
            at = self.end
            if self._sha is not None:
                self._sha.update(new)
            self._kept.append(new)
            self.end += len(new)
            yield from _part(new, begin - at, end - at)

    def digest(self, end: int) -> str:
        """Of all bytes, which end here; the last ones are kept by then."""
        assert self._sha is not None
        for _ in self.read(self.end, end):
            pass
        return f"sha256:{self._sha.hexdigest()}"

    def forget(self, before: int) -> None:
        """Let go of what comes before."""
        while self._kept and self.start + len(self._kept[0]) <= before:
            self.start += len(self._kept.pop(0))


def _part(piece: bytes, begin: int, end: int) -> Iterator[bytes]:
    if part := piece[max(0, begin) : max(0, end)]:
        yield part


def _digest(body: Iterable[bytes]) -> str:
    sha = hashlib.sha256()
    for piece in body:
        sha.update(piece)
    return f"sha256:{sha.hexdigest()}"


def _place(answer: httpx.Response) -> httpx.URL | None:
    """Where an upload goes on; None where the registry does not say, or says nonsense."""
    try:
        return answer.url.join(answer.headers["Location"])
    except (KeyError, httpx.InvalidURL):
        return None

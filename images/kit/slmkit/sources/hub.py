"""``hf://org/name[@revision]``: a model or a data set of Hugging Face's hub, by commit."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx

from slmkit.access import bearer
from slmkit.full import full
from slmkit.meter import Meter, Unmetered
from slmkit.net import Gate, Transport
from slmkit.run import RunFailed
from slmkit.sources.web import STATUS
from slmops.contract import Reason, Source

READ = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.jsonl", "*.jsonl.zst", "*.csv", "*.parquet")
SAID = ("readme.md", "license*", "licence*", "copying*", "notice*")
"""What says on which terms; in capitals or not, as ``licences`` reads it. A licence that is not fetched is not known."""
WANTED = [*READ, *("".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in name) for name in SAID)]
"""Patterns of ``fnmatch``, which tells capitals apart."""


def snapshot(source: Source, rest: str, into: Path, kind: str, meter: Meter | None = None) -> str:
    """Fetch what is needed of a repository. Its client connects through our gate."""
    # Its second way of downloading is a library in another language, which would connect by itself.
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    try:
        from huggingface_hub import HfApi, set_client_factory, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
    except ImportError:
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"{source.uri}: this image has no huggingface_hub") from None
    transport = Counting(Transport(Gate()), meter := meter or Unmetered())
    set_client_factory(lambda: httpx.Client(transport=transport, follow_redirects=True, timeout=60))
    name, _, revision = rest.partition("@")
    token = bearer(source.credentials).get("Authorization", "").removeprefix("Bearer ") or None
    try:
        found = HfApi(token=token).repo_info(name, repo_type=kind, revision=revision or None, files_metadata=True)
        commit = found.sha
        meter.expect(wanted_bytes(found.siblings or ()))
        snapshot_download(name, repo_type=kind, revision=commit, local_dir=into, token=token, allow_patterns=WANTED)
    except RepositoryNotFoundError:
        raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{source.uri}: no such repository, or no right to read it") from None
    except httpx.HTTPStatusError as error:  # the library's newer versions know another client's errors only
        unknown = error.response.headers.get("X-Error-Code") == "RepoNotFound"
        reason = Reason.SOURCE_NOT_FOUND if unknown else STATUS.get(error.response.status_code)
        raise RunFailed(
            reason or Reason.SOURCE_UNREACHABLE, f"{source.uri}: the hub answered {error.response.status_code}"
        ) from None
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        if full(error):
            raise
        raise RunFailed(Reason.SOURCE_UNREACHABLE, f"{source.uri}: {type(error).__name__}: {error}") from None
    return f"hf://{name}@{commit}"


def wanted_bytes(files: Iterable[Any]) -> int:
    """Bytes of a repository's files that are fetched; those that it tells no size of count as nothing."""
    return sum(file.size or 0 for file in files if any(fnmatch(file.rfilename, pattern) for pattern in WANTED))


class Counting(httpx.BaseTransport):
    """Counts the bytes of files, whoever asks for them: the hub's client fetches several at a time, and its own bars
    change from version to version."""

    def __init__(self, inner: httpx.BaseTransport, meter: Meter) -> None:
        self._inner, self._meter, self._lock = inner, meter, threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """An answer of the other transport."""
        answer = self._inner.handle_request(request)
        path = request.url.path
        about = path.startswith("/api/") and not path.startswith("/api/resolve-cache/")
        if answer.is_success and not about and isinstance(answer.stream, httpx.SyncByteStream):
            answer.stream = _Counted(answer.stream, self._count)
        return answer

    def _count(self, count: int) -> None:
        with self._lock:
            self._meter.advance(count)

    def close(self) -> None:
        """Close the other transport."""
        self._inner.close()


class _Counted(httpx.SyncByteStream):
    def __init__(self, inner: httpx.SyncByteStream, count: Callable[[int], None]) -> None:
        self._inner, self._count = inner, count

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._inner:
            self._count(len(chunk))
            yield chunk

    def close(self) -> None:
        self._inner.close()

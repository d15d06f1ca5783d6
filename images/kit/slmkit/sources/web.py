"""``https://host/file``, with ``#sha256=…`` where the very bytes matter."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import httpx

from slmkit.access import bearer
from slmkit.meter import Meter, Unmetered
from slmkit.net import Gate, Transport
from slmkit.run import RunFailed
from slmkit.sources.digests import promised
from slmkit.whole import whole
from slmops.contract import Reason, Source

FILE_LIMIT = 64 << 30
REDIRECTS = 5


def download(source: Source, into: Path, plain_http: Iterable[str], meter: Meter | None = None) -> str:
    """One file. Returns its address with the digest of what came.

    Redirects are followed to public addresses only: a data set's server may not point us inwards. HTTP without TLS is
    taken where the digest is given, or from hosts that the installation lists.
    """
    address, _, fragment = source.uri.partition("#")
    wanted = promised(source, fragment)
    gate = Gate(trusted=plain_http)
    client = httpx.Client(transport=Transport(gate), timeout=60, follow_redirects=False)
    with named(source), client:
        url = httpx.URL(address)
        refuse_plain(gate, url, source, wanted)
        digest = _follow(client, gate, url, source, into / file_name(url), wanted, meter or Unmetered())
    if wanted not in ("", digest):
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{source.uri}: the file's digest is sha256={digest}")
    return f"{address}#sha256={digest}"


@contextmanager
def named(source: Source) -> Iterator[None]:
    """Whatever fails meanwhile is a RunFailed that begins with the source."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RunFailed(Reason.SOURCE_UNREACHABLE, f"{source.uri}: {type(error).__name__}: {error}") from None
    except RunFailed as failed:
        told = failed.message.startswith(source.uri)
        raise RunFailed(failed.reason, failed.message if told else f"{source.uri}: {failed.message}") from None


def refuse_plain(gate: Gate, url: httpx.URL, source: Source, digest: str = "") -> None:
    """Without TLS anybody on the way can change what comes; a digest, or the installation, vouches for it."""
    if url.scheme == "https" or digest or gate.trusts(url):
        return
    gate.addresses(url)  # says so where it is an address that is not asked at all
    raise RunFailed(Reason.UNSAFE_SOURCE, f"{source.uri}: http:// can be changed on its way; use https://, add "
                    "#sha256=<digest>, or have the host listed in the chart's plainHttpRegistries")  # fmt: skip


def _follow(
    client: httpx.Client, gate: Gate, url: httpx.URL, source: Source, file: Path, wanted: str, meter: Meter
) -> str:
    headers = bearer(source.credentials)
    for _ in range(REDIRECTS):
        with client.stream("GET", url, headers=headers) as answer:
            if not answer.has_redirect_location:
                refuse_status(answer, source.uri)
                digest = save(answer, file, source.uri, meter)
                if wanted not in ("", digest):
                    file.unlink()
                return digest
            target = url.join(answer.headers["Location"])
            if origin(target) != origin(url):
                headers = {}
            if target.scheme == "http" and url.scheme == "https":
                refuse_plain(gate, target, source, wanted)
            url = target
    raise RunFailed(Reason.SOURCE_UNREACHABLE, f"{source.uri}: too many redirects")


STATUS: Mapping[int, Reason] = {
    404: Reason.SOURCE_NOT_FOUND, 401: Reason.SOURCE_UNAUTHORIZED, 403: Reason.SOURCE_UNAUTHORIZED,
}  # fmt: skip


def refuse_status(answer: httpx.Response, uri: str) -> None:
    """The failure that an answer other than 2xx means."""
    if not answer.is_success:
        reason = STATUS.get(answer.status_code, Reason.SOURCE_UNREACHABLE)
        raise RunFailed(reason, f"{uri}: answered {answer.status_code}")


def save(answer: httpx.Response, file: Path, uri: str, meter: Meter | None = None) -> str:
    """Write an answer's body to a file. Returns its sha256."""
    size, sha, meter = 0, hashlib.sha256(), meter or Unmetered()
    announced = answer.headers.get("Content-Length", "")
    meter.expect(int(announced) if announced.isdecimal() and len(announced) < 16 else 0)
    with whole(file) as out:
        for chunk in answer.iter_raw(1 << 20):
            size += len(chunk)
            if size > FILE_LIMIT:
                raise RunFailed(Reason.UNSAFE_SOURCE, f"{uri}: larger than {FILE_LIMIT} bytes")
            sha.update(chunk)
            out.write(chunk)
            meter.advance(len(chunk))
    return sha.hexdigest()


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Who a token may be shown to."""
    return url.scheme, url.host, url.port


def file_name(url: httpx.URL) -> str:
    """A name for the file, whatever the address looks like."""
    name = Path(unquote(url.path)).name
    return name if name.isprintable() and name not in ("", "..") and len(name.encode()) < 256 else "data.jsonl"

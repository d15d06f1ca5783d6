"""``s3://bucket/prefix``: Amazon's object store and those that speak its protocol (MinIO, Ceph, …).

Two requests of it are needed, GetObject and ListObjectsV2, so there is no client library in the images: the signature is
that of the protocol's documentation (AWS Signature Version 4), the bucket stands in the path, which all servers know.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from urllib.parse import quote
from xml.etree import ElementTree

import httpx

from slmkit.access import fit_for_a_header
from slmkit.meter import Meter
from slmkit.net import Gate, Transport
from slmkit.run import RunFailed
from slmkit.sources.digests import of_folder, promised
from slmkit.sources.web import named, refuse_plain, refuse_status, save
from slmops.contract import Credentials, Reason, Source

OBJECTS, PAGE_LIMIT = 10_000, 4 << 20
"""Objects below a prefix, and bytes of one page of their list. A page has a thousand."""
EMPTY = hashlib.sha256(b"").hexdigest()
REGION = re.compile(r"[a-z0-9-]{1,32}")


@dataclass(frozen=True)
class Account:
    """Who asks; without keys nobody in particular."""

    key: str = ""
    secret: str = ""
    session: str = ""
    region: str = "us-east-1"


def account(credentials: Credentials | None) -> Account:
    """The keys of a Secret, named as everywhere: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, and where needed
    ``AWS_SESSION_TOKEN`` and ``AWS_REGION``. Raises RunFailed without quoting any."""
    if credentials is None:
        return Account()
    found = {}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"):
        try:
            found[name] = Path(credentials.path, name).read_text().strip()
        except FileNotFoundError:
            found[name] = ""
        except (OSError, ValueError):
            raise RunFailed(Reason.SOURCE_UNAUTHORIZED, f"the Secret's {name} cannot be read") from None
    for name, value in found.items():
        needed = name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        if (needed or value) and not fit_for_a_header(value):
            raise RunFailed(Reason.SOURCE_UNAUTHORIZED, f"the Secret that credentials names has no usable {name}")
    region = found["AWS_REGION"] or "us-east-1"
    if not REGION.fullmatch(region):
        raise RunFailed(Reason.SOURCE_UNAUTHORIZED, "the Secret's AWS_REGION is not the name of a region")
    return Account(found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"], found["AWS_SESSION_TOKEN"], region)


def signed(account: Account, method: str, url: httpx.URL, now: datetime) -> dict[str, str]:
    """The headers that a request without a body needs (AWS Signature Version 4, every header but Host our own)."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": url.netloc.decode("ascii"), "x-amz-content-sha256": EMPTY, "x-amz-date": stamp}
    if account.session:
        headers["x-amz-security-token"] = account.session
    if account.key:
        scope = f"{stamp[:8]}/{account.region}/s3/aws4_request"
        names = ";".join(sorted(headers))
        path, _, query = url.raw_path.decode("ascii").partition("?")
        canonical = "\n".join(
            (method, path, query, *(f"{name}:{headers[name]}" for name in sorted(headers)), "", names, EMPTY)
        )
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{account.secret}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={account.key}/{scope},SignedHeaders={names},Signature={key.hex()}"
        )
    return headers


def address(base: str, bucket: str, key: str = "", query: Mapping[str, str] | None = None) -> httpx.URL:
    """The URL of a bucket or an object, spelled as it is signed: every byte but the unreserved ones as %XX."""
    text = f"{base.rstrip('/')}/{bucket}" + (f"/{quote(key, safe='/~')}" if key else "")
    pairs = "&".join(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in sorted((query or {}).items()))
    return httpx.URL(f"{text}?{pairs}" if pairs else text)


class Bucket:
    """One bucket of one server."""

    def __init__(
        self, source: Source, name: str, plain_http: Iterable[str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC), meter: Meter | None = None,
    ) -> None:  # fmt: skip
        self._source, self.name, self._now, self._meter = source, name, now, meter
        self._account = account(source.credentials)
        self._base = source.endpoint or f"https://s3.{self._account.region}.amazonaws.com"
        gate = Gate(trusted=plain_http)
        self._client = httpx.Client(transport=Transport(gate), timeout=60, follow_redirects=False)
        refuse_plain(gate, httpx.URL(self._base), source)

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys that begin with a prefix."""
        query = {"list-type": "2", "prefix": prefix, "max-keys": "1000"}
        count = 0
        while True:
            page = self._page(query)
            for key in page.iterfind("{*}Contents/{*}Key"):
                count += 1
                if count > OBJECTS:
                    raise self._unsafe(f"more than {OBJECTS} objects; name a longer prefix")
                yield key.text or ""
            further = page.findtext("{*}NextContinuationToken")
            if page.findtext("{*}IsTruncated") != "true" or not further:
                return
            query["continuation-token"] = further

    def get(self, key: str, file: Path) -> str:
        """Write an object to a file. Returns its sha256."""
        file.parent.mkdir(parents=True, exist_ok=True)
        url = address(self._base, self.name, key)
        with self._client.stream("GET", url, headers=signed(self._account, "GET", url, self._now())) as answer:
            self._refuse(answer)
            return save(answer, file, self._source.uri, self._meter)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _page(self, query: Mapping[str, str]) -> ElementTree.Element:
        url = address(self._base, self.name, query=query)
        with self._client.stream("GET", url, headers=signed(self._account, "GET", url, self._now())) as answer:
            self._refuse(answer)
            body = bytearray()
            for chunk in answer.iter_raw():
                body += chunk
                if len(body) > PAGE_LIMIT:
                    raise self._unsafe(f"the list of objects has a page of more than {PAGE_LIMIT} bytes")
        # A document type could define words that unfold to gigabytes, or that are read from elsewhere; S3 has none.
        if b"<!" in body:
            raise self._unsafe("the list of objects has a document type")
        try:
            return ElementTree.fromstring(bytes(body))  # noqa: S314  (no document type, bounded)
        except ElementTree.ParseError as error:
            raise self._unsafe(f"the list of objects is not XML: {error}") from None

    def _refuse(self, answer: httpx.Response) -> None:
        if answer.status_code in (301, 307, 400) and (region := answer.headers.get("x-amz-bucket-region")):
            raise RunFailed(Reason.SOURCE_UNAUTHORIZED, f"{self._source.uri}: the bucket is in region {region[:32]}; "
                            "set AWS_REGION in the Secret")  # fmt: skip
        refuse_status(answer, self._source.uri)

    def _unsafe(self, what: str) -> RunFailed:
        return RunFailed(Reason.UNSAFE_SOURCE, f"{self._source.uri}: {what}")


def download(source: Source, rest: str, into: Path, plain_http: Iterable[str], meter: Meter | None = None) -> str:
    """One object, or all below a prefix as a folder. Returns the address with a digest over all that came."""
    rest, _, fragment = rest.partition("#")
    name, _, prefix = rest.partition("/")
    wanted = promised(source, fragment)
    bucket = Bucket(source, name, plain_http, meter=meter)
    with named(source), closing(bucket):
        files = {target: bucket.get(key, into / target) for key, target in _targets(bucket, source, prefix).items()}
    return f"s3://{rest}#sha256={of_folder(source, files, wanted)}"


def _targets(bucket: Bucket, source: Source, prefix: str) -> dict[str, str]:
    """Which objects are meant, and under which names they are kept: never outside of the folder."""
    folder = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
    found: dict[str, str] = {}
    for key in bucket.keys(prefix):
        if key == prefix and not prefix.endswith("/"):
            return {key: _inside(PurePosixPath(key).name, source)}
        if key.startswith(folder) and not key.endswith("/"):
            found[key] = _inside(key.removeprefix(folder), source)
    if not found:
        raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{source.uri}: no object has this name or begins with it")
    names = set(found.values())
    for name in names:
        if any(str(parent) in names for parent in PurePosixPath(name).parents):
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{source.uri}: {name} lies below a file")
    return found


def _inside(name: str, source: Source) -> str:
    path = PurePosixPath(name if name.isprintable() and "\\" not in name else "..")
    long = len(path.parts) > 16 or any(len(part.encode()) > 255 for part in path.parts)
    if path.is_absolute() or ".." in path.parts or not path.parts or long or str(path) != name:
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{source.uri}: the object's name {name!r} leaves the folder, or is none")
    return name

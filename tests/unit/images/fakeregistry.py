"""A registry in the test process, over real HTTP: blobs, manifests, tags, referrers, logins, and faults.

As strict as the real ones where clients tend to be wrong: digests are checked, a manifest needs its blobs, a token has a
scope, and a chunk has to continue what is there, at the place that was named last. Faults are put in front of it by
request: ``answer`` for the next ones, ``always`` for all.
"""

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from slmkit.registry import Registry
from slmops import contract
from tests.unit.images.serving import Serving

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
PATH = re.compile(r"^/v2/(?P<name>.+)/(?P<what>blobs/uploads|blobs|manifests|referrers)/(?P<reference>[^/]*)$")


@dataclass(frozen=True)
class Answer:
    """What comes instead of the registry's own answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    """The connection breaks after so many bytes of the body."""
    took: int | None = None
    """The connection breaks after so many bytes of the request's body, which count as received."""
    lost: bool = False
    """The request is carried out, and the connection breaks before the answer."""


CUT = Answer(status=0)
"""The connection breaks before any answer."""
PASS = Answer(status=1)
"""None: this request is answered as usual, and the next fault is for one after it."""


def sha256(content: bytes) -> str:
    """A digest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Upload:
    """What has come of a blob."""

    content: bytearray = field(default_factory=bytearray)
    turn: int = 0
    """Counts the places that it was given."""


class FakeRegistry(Serving):
    """The server; a context manager."""

    def __init__(self, *, referrers: bool = True) -> None:
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        """By repository and digest or tag: media type and content."""
        self.requests: list[str] = []
        """``GET /v2/…``, in order; the query is left out."""
        self.shown: list[tuple[str, str]] = []
        """Each request's Authorization header."""
        self.users: dict[str, str] = {}
        """Passwords; whoever wants something needs one as soon as there is one."""
        self.scheme = "Bearer"
        self.tokens: dict[str, str] = {}
        """Valid tokens, and their scope."""
        self.also: list[str] = []
        """Other hosts that the client is told of as plain HTTP."""
        self.upload_host: str | None = None
        """Uploads go to this host instead."""
        self.uploads: dict[str, Upload] = {}
        """Those that were begun, by their number; one that is taken out is forgotten."""
        self.chunks = self.tells = self.mounts = self.ranges = True
        """What it can do: take chunks, tell how far an upload is, mount, send a part of a blob."""
        self.least = 0
        """Bytes that a chunk has to have."""
        self.received = self.sent = 0
        """Bytes of blobs, whole or in part."""
        self._referrers = referrers
        self._faults: list[tuple[re.Pattern[str], list[Answer], bool]] = []
        self._numbers = itertools.count(1)
        super().__init__(_Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"registry": self})))

    @property
    def settings(self) -> contract.Registry:
        """How it is reached."""
        return contract.Registry(plain_http=(self.host, *self.also))

    def client(self, pauses: list[float] | None = None) -> Registry:
        """The code under test; it does not wait, it only notes for how long it would have."""
        return Registry(self.settings, sleep=(pauses if pauses is not None else []).append)

    # --- what a test puts in

    def answer(self, requests: str, *answers: Answer) -> None:
        """The next requests that match (``METHOD path``, a regular expression) are answered so, one answer each."""
        self._faults.append((re.compile(requests), list(answers), False))

    def always(self, requests: str, answer: Answer) -> None:
        """All requests that match are answered so."""
        self._faults.append((re.compile(requests), [answer], True))

    def hold(self, name: str, content: bytes) -> dict[str, Any]:
        """Store a blob. Returns its descriptor."""
        self.blobs[name, sha256(content)] = content
        return {"mediaType": "application/octet-stream", "digest": sha256(content), "size": len(content)}

    def publish(self, name: str, manifest: object, tag: str = "latest") -> str:
        """Store a manifest as it is, however wrong. Returns its digest."""
        body = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        self.manifests[name, sha256(body)] = self.manifests[name, tag] = (MANIFEST, body)
        return sha256(body)

    def artifact(self, name: str, files: Mapping[str, bytes], tag: str = "latest") -> str:
        """Store an artefact of files. Returns its digest."""
        layers = [
            self.hold(name, content) | {"annotations": {"org.opencontainers.image.title": title}}
            for title, content in files.items()
        ]
        return self.publish(name, {"schemaVersion": 2, "config": self.hold(name, b"{}"), "layers": layers}, tag)

    # --- what a test looks at

    def count(self, requests: str) -> int:
        """How many requests matched."""
        return sum(bool(re.search(requests, line)) for line in self.requests)

    def manifest(self, name: str, reference: str) -> Any:
        """A stored manifest."""
        return json.loads(self.manifests[name, reference][1])

    def referrers(self, name: str, digest: str) -> dict[str, Any] | None:
        """An index of what refers to a manifest; None without the referrers API."""
        if not self._referrers:
            return None
        found = {
            sha256(body): {"mediaType": type, "digest": sha256(body), "size": len(body)}
            | {key: said[key] for key in ("artifactType", "annotations") if key in said}
            for (repository, _), (type, body) in self.manifests.items()
            if repository == name and ((said := json.loads(body)).get("subject") or {}).get("digest") == digest
        }
        return {"schemaVersion": 2, "mediaType": INDEX, "manifests": [found[each] for each in sorted(found)]}

    # --- inside

    def fault(self, line: str) -> Answer | None:
        """The fault of a request, if it has one."""
        for pattern, answers, stays in self._faults:
            if answers and pattern.search(line):
                found = answers[0] if stays else answers.pop(0)
                return None if found is PASS else found
        return None

    def allowed(self, authorization: str, name: str, writes: bool) -> bool:
        """Whether a request may pass."""
        if not self.users:
            return True
        kind, _, secret = authorization.partition(" ")
        if kind == "Basic" and self.scheme == "Basic":
            return self.knows(secret)
        wanted = f"repository:{name}:pull"
        scopes = self.tokens.get(secret, "").split()
        return kind == "Bearer" and (f"{wanted},push" in scopes or (not writes and wanted in scopes))

    def knows(self, basic: str) -> bool:
        """Whether these are a user's name and password."""
        user, _, password = base64.b64decode(basic).decode().partition(":")
        return self.users.get(user) == password

    def token(self, *scopes: str) -> str:
        """A new token."""
        token = f"token-{next(self._numbers)}"
        self.tokens[token] = " ".join(scopes)
        return token

    def begin(self) -> str:
        """A new upload's number."""
        number = str(next(self._numbers))
        self.uploads[number] = Upload()
        return number


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up in the middle: that is what is tested."""


class _Handler(BaseHTTPRequestHandler):
    registry: FakeRegistry
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def _do(self) -> None:
        path = urlsplit(self.path).path
        line = f"{self.command} {path}"
        self.registry.requests.append(line)
        self.registry.shown.append((line, self.headers.get("Authorization", "")))
        fault = self.registry.fault(line)
        if fault is CUT:
            self.close_connection = True
            return
        if fault is not None and fault.took is not None:
            upload = self.registry.uploads[path.rpartition("/")[2]]
            upload.content += self.rfile.read(fault.took)
            self.registry.received += fault.took
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = fault if fault and not fault.lost else self._answer(path, body)
        if fault and fault.lost:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: answer.cut])
        self.close_connection = self.close_connection or answer.cut is not None

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _do

    def _answer(self, path: str, body: bytes) -> Answer:
        registry, query = self.registry, parse_qs(urlsplit(self.path).query)
        authorization = self.headers.get("Authorization", "")
        if path == "/token":
            kind, _, secret = authorization.partition(" ")
            if registry.users and not (kind == "Basic" and registry.knows(secret)):
                return _error(401, "UNAUTHORIZED", "no such user")
            return Answer(body=json.dumps({"token": registry.token(*query["scope"])}).encode())
        match = PATH.match(path)
        if not match:
            return _error(404, "NAME_UNKNOWN", "no such page")
        name, what, reference = match["name"], match["what"], match["reference"]
        if not registry.allowed(authorization, name, self.command in ("POST", "PUT", "PATCH")):
            challenge = f'{registry.scheme} realm="http://{registry.host}/token",service="fake"'
            return _error(401, "UNAUTHORIZED", "log in first", {"WWW-Authenticate": challenge})
        if what == "blobs/uploads":
            return self._upload(name, reference, body, query)
        if what == "referrers":
            found = registry.referrers(name, reference)
            return _error(404, "NOT_FOUND", "") if found is None else Answer(body=json.dumps(found).encode())
        if self.command == "PUT":
            return self._put_manifest(name, reference, body)
        if what == "blobs":
            content: bytes | None = registry.blobs.get((name, reference))
            type = "application/octet-stream"
        else:
            type, content = registry.manifests.get((name, reference), ("", None))
        if content is None:
            return _error(404, "UNKNOWN", f"{what} {reference} unknown")
        headers = {"Content-Type": type, "Docker-Content-Digest": sha256(content)}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if what == "blobs" and wanted and registry.ranges:
            begin, end = int(wanted[1]), int(wanted[2])
            if end >= len(content):
                return _error(416, "RANGE_INVALID", "there is no such part")
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(content)}"
            registry.sent += end + 1 - begin
            return Answer(206, content[begin : end + 1], headers)
        registry.sent += len(content) if what == "blobs" and self.command == "GET" else 0
        return Answer(body=content, headers=headers)

    def _upload(self, name: str, number: str, body: bytes, query: dict[str, list[str]]) -> Answer:
        registry = self.registry
        if self.command == "POST":
            return self._begin(name, query)
        if registry.upload_host is None and number not in registry.uploads:
            return _error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        upload = registry.uploads.setdefault(number, Upload())
        if query.get("state") != ["kept"]:
            return _error(404, "BLOB_UPLOAD_UNKNOWN", "the upload's state is lost")
        if self.command == "GET":
            return Answer(204, headers=self._place(name, number)) if registry.tells else _error(404, "UNKNOWN", "")
        if query.get("turn") != [str(upload.turn)]:
            return _error(400, "BLOB_UPLOAD_INVALID", "that is not the place that was named last")
        said = self.headers.get("Content-Range")
        begin = len(upload.content)
        if said is not None and said != f"{begin}-{begin + len(body) - 1}":
            return _error(416, "BLOB_UPLOAD_INVALID", "that does not continue what is here")
        if self.command == "PATCH":
            if not registry.chunks or said is None or len(body) < registry.least:
                return _error(405 if not registry.chunks else 400, "UNSUPPORTED", "no such chunks here")
            self._take(upload, body)
            upload.turn += 1
            return Answer(202, headers=self._place(name, number))
        content = bytes(upload.content) + body
        if query.get("digest") != [sha256(content)]:
            return _error(400, "DIGEST_INVALID", "the content has another digest")
        self._take(upload, body)
        registry.blobs[name, sha256(content)] = content
        registry.uploads.pop(number)
        return Answer(201)

    def _begin(self, name: str, query: dict[str, list[str]]) -> Answer:
        registry = self.registry
        other, digest = query.get("from", [""])[0], query.get("mount", [""])[0]
        readable = registry.allowed(self.headers.get("Authorization", ""), other, False)
        if registry.mounts and readable and (other, digest) in registry.blobs:
            registry.blobs[name, digest] = registry.blobs[other, digest]
            return Answer(201, headers={"Location": f"/v2/{name}/blobs/{digest}"})
        headers = self._place(name, registry.begin())
        return Answer(202, headers=headers | ({"OCI-Chunk-Min-Length": str(registry.least)} if registry.least else {}))

    def _place(self, name: str, number: str) -> dict[str, str]:
        upload = self.registry.uploads[number]
        host = f"http://{self.registry.upload_host}" if self.registry.upload_host else ""
        has = f"0-{max(0, len(upload.content) - 1)}"
        return {"Location": f"{host}/v2/{name}/blobs/uploads/{number}?state=kept&turn={upload.turn}", "Range": has}

    def _take(self, upload: Upload, body: bytes) -> None:
        upload.content += body
        self.registry.received += len(body)

    def _put_manifest(self, name: str, reference: str, body: bytes) -> Answer:
        manifest = json.loads(body)
        parts = [manifest["config"], *manifest["layers"]] if "layers" in manifest else []
        if any((name, part["digest"]) not in self.registry.blobs for part in parts):
            return _error(400, "MANIFEST_BLOB_UNKNOWN", "a blob is missing")
        if reference.startswith("sha256:") and reference != sha256(body):
            return _error(400, "DIGEST_INVALID", "the manifest has another digest")
        stored = (self.headers["Content-Type"], body)
        self.registry.manifests[name, reference] = self.registry.manifests[name, sha256(body)] = stored
        subject = (manifest.get("subject") or {}).get("digest")
        known = subject and self.registry.referrers(name, subject) is not None
        return Answer(201, headers={"OCI-Subject": subject} if known else {})


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status, body, {"Content-Type": "application/json", **(headers or {})})

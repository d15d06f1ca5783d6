"""Registries, by the OCI distribution specification (v1.1): artefacts and images in and out, streamed.

Own code over httpx rather than the ``oras`` package: model files are gigabytes, and what matters here (streaming tar
layers that exist nowhere on disk, retries with Retry-After, one place that maps every refusal to a reason) is what that
package leaves to its caller.
"""

import base64
import hashlib
import json
import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import httpx

from slmkit.layers import MEDIA_TYPE as LAYER_TYPE
from slmkit.layers import Layer
from slmkit.run import RunFailed
from slmops import contract
from slmops.contract import Artifact, Credentials, Reason, Sink, Source

log = logging.getLogger(__name__)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ACCEPT = ", ".join((MANIFEST, INDEX, "application/vnd.docker.distribution.manifest.v2+json"))
EMPTY = b"{}"
TITLE = "org.opencontainers.image.title"
ATTEMPTS = 5
CHUNK = 1 << 20
MANIFEST_LIMIT = 4 << 20
REFERENCE = re.compile(r"^(?P<host>[^/]+)/(?P<name>[^@:]+)(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?$")
Body = bytes | Callable[[], Iterator[bytes]]


class Registry:
    """All registries that a run talks to."""

    def __init__(
        self,
        settings: contract.Registry,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._plain = set(settings.plain_http)
        self._client = httpx.Client(transport=transport, timeout=httpx.Timeout(60, connect=10), follow_redirects=True)
        self._sleep = sleep
        self._tokens: dict[tuple[str, str], str] = {}

    # --- in

    def pull(self, source: Source, into: Path) -> str:
        """Fetch an artefact's files into a folder. Returns the address by digest."""
        reference = parse(source.uri.removeprefix("oci://"))
        host, name = reference["host"], reference["name"]
        tag = reference["digest"] or reference["tag"] or "latest"
        access = _Access(host, name, "pull", source.credentials)
        digest, manifest = self._manifest(access, tag)
        into.mkdir(parents=True, exist_ok=True)
        layers = manifest.get("layers")
        if not isinstance(layers, list) or not layers:
            raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{source.uri} is not an artefact with files")
        for layer in layers:
            title = (layer.get("annotations") or {}).get(TITLE)
            if not title:
                raise RunFailed(Reason.UNSAFE_SOURCE, f"{source.uri}: a layer has no {TITLE} annotation; it is an image, "
                                "not an artefact of files")  # fmt: skip
            self._blob(access, str(layer["digest"]), int(layer["size"]), _inside(into, str(title), source.uri))
        return f"oci://{host}/{name}@{digest}"

    def digest_of(self, reference: str) -> str:
        """The digest that a tag stands for now."""
        parts = parse(reference)
        access = _Access(parts["host"], parts["name"], "pull", None)
        return self._manifest(access, parts["digest"] or parts["tag"] or "latest")[0]

    def annotations(self, reference: str) -> dict[str, str]:
        """The annotations of an artefact or image."""
        parts = parse(reference)
        access = _Access(parts["host"], parts["name"], "pull", None)
        found = self._manifest(access, parts["digest"] or parts["tag"] or "latest")[1].get("annotations")
        return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}

    def _manifest(self, access: "_Access", tag: str) -> tuple[str, dict[str, Any]]:
        answer = self._request("GET", access, f"manifests/{tag}", headers={"Accept": ACCEPT})
        if len(answer.content) > MANIFEST_LIMIT:
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{access}: the manifest is larger than {MANIFEST_LIMIT} bytes")
        digest = _sha256(answer.content)
        if tag.startswith("sha256:") and tag != digest:
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{access}: the registry answered {digest} when asked for {tag}")
        try:
            return digest, json.loads(answer.content)
        except ValueError:
            raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{access}: the manifest is not JSON") from None

    def _blob(self, access: "_Access", digest: str, size: int, path: Path) -> None:
        """One file, to ``path``: what does not have the promised digest is not kept."""
        for attempt in range(ATTEMPTS):
            sha, seen = hashlib.sha256(), 0
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with self._stream(access, f"blobs/{digest}") as answer, path.open("wb") as file:
                    for chunk in answer.iter_bytes(CHUNK):
                        seen += len(chunk)
                        if seen > size:
                            break
                        sha.update(chunk)
                        file.write(chunk)
            except httpx.TransportError as error:
                path.unlink(missing_ok=True)
                if attempt + 1 == ATTEMPTS:
                    raise RunFailed(Reason.SOURCE_UNREACHABLE, f"{access}: {error}") from None
                self._sleep(_pause(attempt, None))
                continue
            if f"sha256:{sha.hexdigest()}" == digest and seen == size:
                return
            path.unlink(missing_ok=True)
            if seen >= size or attempt + 1 == ATTEMPTS:
                raise RunFailed(Reason.UNSAFE_SOURCE, f"{access}: {path.name} does not have digest {digest}")

    # --- out

    def push_artifact(
        self,
        sink: Sink,
        files: Mapping[str, Path],
        artifact_type: str,
        annotations: Mapping[str, str],
        subject: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Publish files as an artefact, one layer a file, sorted by name."""
        access = _push_access(sink)
        layers = []
        for title in sorted(files):
            path = files[title]
            digest, size = _file_digest(path)
            self._upload(access, digest, size, lambda path=path: _read(path))  # type: ignore[misc]
            layers.append({"mediaType": "application/octet-stream", "digest": digest, "size": size,
                           "annotations": {TITLE: title}})  # fmt: skip
        config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": _sha256(EMPTY), "size": len(EMPTY)}
        self._upload(access, config["digest"], len(EMPTY), EMPTY)  # type: ignore[arg-type]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": artifact_type, "config": config,
                    "layers": layers, "annotations": dict(sorted(annotations.items()))}  # fmt: skip
        if subject is not None:
            manifest["subject"] = dict(subject)
        return self._publish(access, manifest, layers)

    def tag(self, sink: Sink, made: Artifact, name: str) -> None:
        """Give something published a name that people can remember; it can be given to something else later."""
        access = _push_access(sink)
        digest = made.reference.partition("@")[2]
        body = self._request("GET", access, f"manifests/{digest}", headers={"Accept": ACCEPT})
        headers = {"Content-Type": body.headers.get("Content-Type", MANIFEST)}
        self._request("PUT", access, f"manifests/{name}", content=body.content, headers=headers)

    def push_image(
        self, sink: Sink, layers: Sequence[Layer], annotations: Mapping[str, str], *, architecture: str
    ) -> Artifact:
        """Publish an OCI image of these layers; the order of the layers is the caller's."""
        access = _push_access(sink)
        described = []
        for layer in layers:
            digest, size = layer.digest()
            self._upload(access, digest, size, layer.chunks)
            extra = {"annotations": {TITLE: layer.title}} if layer.title else {}
            described.append({"mediaType": LAYER_TYPE, "digest": digest, "size": size, **extra})
        config = json.dumps(
            {"architecture": architecture, "os": "linux", "config": {},
             "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in described]}},
            separators=(",", ":"), sort_keys=True,
        ).encode()  # fmt: skip
        self._upload(access, _sha256(config), len(config), config)
        descriptor = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _sha256(config),
                      "size": len(config)}  # fmt: skip
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor, "layers": described,
                    "annotations": dict(sorted(annotations.items()))}  # fmt: skip
        return self._publish(access, manifest, described)

    def _publish(self, access: "_Access", manifest: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> Artifact:
        body = json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()
        digest = _sha256(body)
        self._request("PUT", access, f"manifests/{digest}", content=body, headers={"Content-Type": MANIFEST})
        size = sum(int(layer["size"]) for layer in layers)
        return Artifact(reference=f"{access.host}/{access.name}@{digest}", size=size)

    def _upload(self, access: "_Access", digest: str, size: int, body: Body) -> None:
        """A blob, unless the registry has it."""
        found = self._request("HEAD", access, f"blobs/{digest}", missing_ok=True)
        if found.status_code == 200:
            return
        for attempt in range(ATTEMPTS):
            place = self._request("POST", access, "blobs/uploads/", headers={"Content-Length": "0"})
            location = str(place.url.join(place.headers["Location"]))
            url = httpx.URL(location).copy_merge_params({"digest": digest})
            content = body if isinstance(body, bytes) else body()
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            answer: httpx.Response | None = None
            try:
                answer = self._client.put(url, content=content, headers={**headers, **self._authorization(access)})
            except httpx.TransportError as error:
                log.warning("upload interrupted", extra={"error": str(error), "attempt": attempt})
            if answer is not None and answer.status_code == 201:
                return
            if answer is not None and answer.status_code not in (408, 429, 500, 502, 503, 504):
                raise access.refused(answer)
            self._sleep(_pause(attempt, answer))
        raise RunFailed(Reason.REGISTRY_UNREACHABLE, f"{access}: an upload of {size} bytes failed {ATTEMPTS} times")

    # --- HTTP

    def _request(
        self, method: str, access: "_Access", path: str, *, missing_ok: bool = False, **options: Any
    ) -> httpx.Response:
        answer: httpx.Response | None = None
        trouble = ""
        headers = options.pop("headers", {})
        for attempt in range(ATTEMPTS):
            try:
                answer = self._client.request(
                    method, self._url(access, path), headers={**headers, **self._authorization(access)}, **options
                )
            except httpx.TransportError as error:
                answer, trouble = None, f"{type(error).__name__}: {error}"
            if answer is not None:
                if answer.status_code == 401 and self._log_in(access, answer):
                    continue
                if answer.is_success or (missing_ok and answer.status_code == 404):
                    return answer
                if answer.status_code not in (408, 429, 500, 502, 503, 504):
                    raise access.refused(answer)
                trouble = f"answered {answer.status_code}"
            if attempt + 1 < ATTEMPTS:
                self._sleep(_pause(attempt, answer))
        reason = Reason.SOURCE_UNREACHABLE if access.action == "pull" else Reason.REGISTRY_UNREACHABLE
        raise RunFailed(reason, f"{access}: {trouble}, {ATTEMPTS} times")

    def _stream(self, access: "_Access", path: str) -> Any:
        self._request("HEAD", access, path)
        return self._client.stream("GET", self._url(access, path), headers=self._authorization(access))

    def _url(self, access: "_Access", path: str) -> str:
        scheme = "http" if access.host in self._plain else "https"
        return f"{scheme}://{access.host}/v2/{access.name}/{path}"

    def _authorization(self, access: "_Access") -> dict[str, str]:
        token = self._tokens.get((access.host, access.scope))
        return {"Authorization": token} if token else {}

    def _log_in(self, access: "_Access", answer: httpx.Response) -> bool:
        """Answer a challenge (Basic or Bearer). False when that was tried before or there is nothing to answer with."""
        if (access.host, access.scope) in self._tokens:
            return False
        user = access.user()
        challenge = answer.headers.get("WWW-Authenticate", "")
        if challenge.lower().startswith("basic"):
            if not user:
                return False
            self._tokens[access.host, access.scope] = f"Basic {user}"
            return True
        parts = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        if "realm" not in parts:
            return False
        reply = self._client.get(
            parts["realm"],
            params={"service": parts.get("service", ""), "scope": access.scope},
            headers={"Authorization": f"Basic {user}"} if user else {},
        )
        if not reply.is_success:
            return False
        token = reply.json().get("token") or reply.json().get("access_token")
        self._tokens[access.host, access.scope] = f"Bearer {token}"
        return bool(token)


class _Access:
    """One repository, one purpose, and what to show at the door."""

    def __init__(self, host: str, name: str, action: str, credentials: Credentials | None) -> None:
        self.host, self.name, self.action, self._credentials = host, name, action, credentials
        self.scope = f"repository:{name}:{'pull' if action == 'pull' else 'pull,push'}"

    def __str__(self) -> str:
        return f"{self.host}/{self.name}"

    def user(self) -> str | None:
        """``user:password`` in base64, from a Docker ``config.json``."""
        if self._credentials is None:
            return None
        try:
            auths = json.loads(Path(self._credentials.path).read_bytes())["auths"]
            entry = auths.get(self.host) or auths.get(f"https://{self.host}") or {}
        except (OSError, ValueError, KeyError, AttributeError):
            raise RunFailed(self._unauthorized(), f"{self}: the Secret holds no readable .dockerconfigjson") from None
        if "auth" in entry:
            return str(entry["auth"])
        if "username" in entry:
            return base64.b64encode(f"{entry['username']}:{entry.get('password', '')}".encode()).decode()
        return None

    def _unauthorized(self) -> Reason:
        return Reason.SOURCE_UNAUTHORIZED if self.action == "pull" else Reason.REGISTRY_REFUSED

    def refused(self, answer: httpx.Response) -> RunFailed:
        """The failure that a definite answer means."""
        if answer.status_code == 404 and self.action == "pull":
            return RunFailed(Reason.SOURCE_NOT_FOUND, f"{self}: not found in the registry")
        reason = self._unauthorized() if self.action == "push" or answer.status_code in (401, 403) else (
            Reason.SOURCE_UNREACHABLE
        )  # fmt: skip
        return RunFailed(reason, f"{self}: the registry answered {answer.status_code} {_words(answer)}".strip())


def parse(reference: str) -> dict[str, str | Any]:
    """``host/name[:tag][@digest]`` in parts."""
    match = REFERENCE.match(reference)
    if not match:
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"{reference} is not registry/repository[:tag][@sha256:…]")
    return match.groupdict()


def _push_access(sink: Sink) -> _Access:
    reference = parse(sink.repository)
    return _Access(reference["host"], reference["name"], "push", sink.credentials)


def _inside(folder: Path, title: str, uri: str) -> Path:
    """Where a file goes; never outside of the folder, whatever its name says."""
    relative = PurePosixPath(title)
    if relative.is_absolute() or ".." in relative.parts or "\\" in title or "\0" in title:
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{uri}: the file name {title!r} leaves the folder")
    return folder / relative


def _words(answer: httpx.Response) -> str:
    try:
        return "; ".join(str(error.get("message", "")) for error in answer.json()["errors"])[:200]
    except (ValueError, KeyError, TypeError, AttributeError, httpx.ResponseNotRead):
        return ""


def _pause(attempt: int, answer: httpx.Response | None) -> float:
    asked = answer.headers.get("Retry-After", "") if answer is not None else ""
    if asked.isdigit():
        return min(float(asked), 60.0)
    return float(2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311  (jitter, not a secret)


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _file_digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        sha = hashlib.file_digest(file, "sha256")
    return f"sha256:{sha.hexdigest()}", path.stat().st_size


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"

"""Registries, by the OCI distribution specification (v1.1): artefacts and images in and out, streamed.

Own code over httpx rather than the ``oras`` package: model files are gigabytes, and what matters here (streaming tar
layers that exist nowhere on disk, retries with Retry-After, one place that maps every refusal to a reason) is what that
package leaves to its caller.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import httpx

from slmkit import referrers
from slmkit.access import Access, parse
from slmkit.layers import MEDIA_TYPE as LAYER_TYPE
from slmkit.layers import Layer
from slmkit.manifests import TITLE, files_of, tars_of
from slmkit.run import RunFailed
from slmkit.whole import whole
from slmkit.wire import ATTEMPTS, Wire
from slmops import contract
from slmops.contract import Artifact, Reason, Sink, Source

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ACCEPT = ", ".join((MANIFEST, referrers.INDEX, "application/vnd.docker.distribution.manifest.v2+json"))
EMPTY = b"{}"
CHUNK = 1 << 20


class Meter(Protocol):
    """Who wants to know how many bytes have come or gone (``slmkit.run.Context``)."""

    def expect(self, more: int) -> None: ...
    def advance(self, count: int) -> None: ...


class Unmetered:
    """Nobody does."""

    def expect(self, more: int) -> None:
        """Nothing."""

    def advance(self, count: int) -> None:
        """Nothing."""


class Registry:
    """All registries that a run talks to."""

    def __init__(
        self,
        settings: contract.Registry,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        meter: Meter | None = None,
    ) -> None:
        self.plain_http = settings.plain_http
        self.meter = meter or Unmetered()
        self._wire = Wire(settings, transport, sleep)

    # --- in

    def pull(self, source: Source, into: Path, others: Mapping[str, str] | None = None) -> str:
        """Fetch an artefact's files into a folder. Returns the address by digest. ``others``: see ``files_of``."""
        reference = parse(source.uri.removeprefix("oci://"))
        access = Access(reference["host"], reference["name"], "pull", source.credentials)
        digest, manifest = self._manifest(access, _newest(reference))
        into.mkdir(parents=True, exist_ok=True)
        files = files_of(manifest, source.uri, others)
        self.meter.expect(sum(size for _, _, size in files))
        for title, blob, size in files:
            self._blob(access, blob, size, into / title)
        return f"oci://{access}@{digest}"

    def digest_of(self, reference: str) -> str:
        """The digest that a tag stands for now."""
        return self.look(reference)[0]

    def annotations(self, reference: str, credentials: contract.Credentials | None = None) -> dict[str, str]:
        """The annotations of an artefact or image."""
        found = self.look(reference, credentials)[1].get("annotations")
        return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}

    def referrers(self, reference: str, artifact_type: str) -> list[bytes]:
        """The documents of a type that refer to an artefact or image, each checked against its digest."""
        manifests = (m for m in self.about(reference) if m.get("artifactType") == artifact_type)
        return [self.document(reference, layer) for m in manifests for layer in m.get("layers") or []]

    def about(self, reference: str, credentials: contract.Credentials | None = None) -> Iterator[dict[str, Any]]:
        """The manifests of all that refers to an artefact or image."""
        access, newest = _pull_access(reference, credentials)
        digest = newest if newest.startswith("sha256:") else self._manifest(access, newest)[0]
        for descriptor in referrers.listed(self._wire, access, digest):
            # The list is only a hint: some registries name the type of the configuration in it.
            manifest = self._manifest(access, str(descriptor["digest"]))[1]
            subject = manifest.get("subject")
            if isinstance(subject, dict) and subject.get("digest") == digest:
                yield manifest

    def document(
        self, reference: str, layer: Mapping[str, Any], credentials: contract.Credentials | None = None
    ) -> bytes:
        """A layer that is read as a whole, from the repository of something published, checked against its digest."""
        access, _ = _pull_access(reference, credentials)
        digest = str(layer.get("digest"))
        content = self._wire.request("GET", access, f"blobs/{digest}").content
        if _sha256(content) != digest:
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{access}: a document does not have digest {digest}")
        return content

    def look(self, reference: str, credentials: contract.Credentials | None = None) -> tuple[str, dict[str, Any]]:
        """The digest that an address stands for now, and its manifest."""
        return self._manifest(*_pull_access(reference, credentials))

    def _manifest(self, access: Access, tag: str) -> tuple[str, dict[str, Any]]:
        answer = self._wire.request("GET", access, f"manifests/{tag}", headers={"Accept": ACCEPT})
        digest = _sha256(answer.content)
        if tag.startswith("sha256:") and tag != digest:
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{access}: the registry answered {digest} when asked for {tag}")
        try:
            manifest = json.loads(answer.content)
        except (ValueError, RecursionError):
            manifest = None
        if not isinstance(manifest, dict):
            raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{access}: the manifest is not a JSON object")
        return digest, manifest

    def _blob(self, access: Access, digest: str, size: int, path: Path) -> None:
        """One file, to ``path``: what does not have the promised digest is not kept."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(ATTEMPTS):
            answer = self._wire.open(access, f"blobs/{digest}")
            seen, sha, trouble = 0, hashlib.sha256(), ""
            try:
                with whole(path) as file:
                    for chunk in answer.iter_raw(CHUNK):
                        seen += len(chunk)
                        if seen > size:
                            break
                        sha.update(chunk)
                        file.write(chunk)
                        self.meter.advance(len(chunk))
            except httpx.RequestError as error:
                trouble = f"{type(error).__name__}: {error}"
            finally:
                answer.close()
            if f"sha256:{sha.hexdigest()}" == digest and seen == size:
                return
            path.unlink(missing_ok=True)
            self.meter.advance(-min(seen, size))
            if seen >= size or (attempt + 1 == ATTEMPTS and not trouble):
                raise RunFailed(Reason.UNSAFE_SOURCE, f"{access}: {path.name} does not have digest {digest}")
            if attempt + 1 == ATTEMPTS:
                raise access.unreachable(trouble)
            self._wire.pause(attempt)

    # --- out

    def push_artifact(
        self,
        sink: Sink,
        files: Mapping[str, Path],
        artifact_type: str,
        annotations: Mapping[str, str],
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
        return self._publish(access, self._artifact(access, artifact_type, layers, annotations), layers)

    def attach(
        self, sink: Sink, subject: Artifact, artifact_type: str, content: bytes, annotations: Mapping[str, str]
    ) -> Artifact:
        """Publish a document that refers to an artefact in the same repository, and is found from it."""
        access = _push_access(sink)
        kind, body = self._published(access, subject)
        self._upload(access, _sha256(content), len(content), lambda: [content])
        layers = [{"mediaType": artifact_type, "digest": _sha256(content), "size": len(content)}]
        manifest = self._artifact(access, artifact_type, layers, annotations)
        manifest["subject"] = {"mediaType": kind, "digest": subject.digest, "size": len(body)}
        return self._publish(access, manifest, layers)

    def _artifact(
        self, access: Access, artifact_type: str, layers: Sequence[Mapping[str, Any]], annotations: Mapping[str, str]
    ) -> dict[str, Any]:
        """The manifest of something that is no image."""
        self._upload(access, _sha256(EMPTY), len(EMPTY), lambda: [EMPTY])
        config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": _sha256(EMPTY), "size": len(EMPTY)}
        return {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": artifact_type, "config": config,
                "layers": list(layers), "annotations": dict(sorted(annotations.items()))}  # fmt: skip

    def tag(self, sink: Sink, made: Artifact, name: str) -> None:
        """Give something published a name that people can remember; it can be given to something else later."""
        access = _push_access(sink)
        kind, body = self._published(access, made)
        self._wire.request("PUT", access, f"manifests/{name}", content=body, headers={"Content-Type": kind})

    def _published(self, access: Access, made: Artifact) -> tuple[str, bytes]:
        """The manifest of something published, by its media type and as it lies there."""
        answer = self._wire.request("GET", access, f"manifests/{made.digest}", headers={"Accept": ACCEPT})
        return answer.headers.get("Content-Type", MANIFEST), answer.content

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
        return self._image(access, described, annotations, architecture)

    def join_images(
        self, sink: Sink, images: Sequence[Source], annotations: Mapping[str, str], *, architecture: str
    ) -> Artifact:
        """Publish an image of the layers of others in the same repository, in their order. No layer is moved."""
        access = _push_access(sink)
        described: list[dict[str, Any]] = []
        for source in images:
            reference = parse(source.uri.removeprefix("oci://"))
            if (reference["host"], reference["name"]) != (access.host, access.name):
                raise RunFailed(Reason.INVALID_CONFIGURATION, f"{source.uri} is not in {sink.repository}")
            described += tars_of(self._manifest(access, _newest(reference))[1], source.uri)
        return self._image(access, described, annotations, architecture)

    def _image(
        self, access: Access, described: Sequence[Mapping[str, Any]], annotations: Mapping[str, str], architecture: str
    ) -> Artifact:
        """Publish an image whose layers are there. They are not compressed, so a layer's digest is its diff id, too."""
        config = json.dumps(
            {"architecture": architecture, "os": "linux", "config": {},
             "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in described]}},
            separators=(",", ":"), sort_keys=True,
        ).encode()  # fmt: skip
        self._upload(access, _sha256(config), len(config), lambda: [config])
        descriptor = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _sha256(config),
                      "size": len(config)}  # fmt: skip
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor, "layers": list(described),
                    "annotations": dict(sorted(annotations.items()))}  # fmt: skip
        return self._publish(access, manifest, described)

    def _publish(self, access: Access, manifest: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> Artifact:
        body = json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()
        digest = _sha256(body)
        answer = self._wire.request("PUT", access, f"manifests/{digest}", content=body,
                                    headers={"Content-Type": MANIFEST})  # fmt: skip
        subject = manifest.get("subject")
        if subject is not None and "OCI-Subject" not in answer.headers:
            entry = {"mediaType": MANIFEST, "digest": digest, "size": len(body), "artifactType": manifest["artifactType"],
                     "annotations": manifest["annotations"]}  # fmt: skip
            referrers.keep(self._wire, access, subject["digest"], entry)
        size = sum(int(layer["size"]) for layer in layers)
        return Artifact(reference=f"{access.host}/{access.name}@{digest}", size=size)

    def _upload(self, access: Access, digest: str, size: int, body: Callable[[], Iterable[bytes]]) -> None:
        """A blob, unless the registry has it."""
        self.meter.expect(size)
        if self._wire.request("HEAD", access, f"blobs/{digest}", missing_ok=True).status_code == 404:
            self._wire.upload(access, digest, size, lambda: self._counted(body()))
        else:
            self.meter.advance(size)

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk
            self.meter.advance(len(chunk))


def _pull_access(reference: str, credentials: contract.Credentials | None) -> tuple[Access, str]:
    """Where something is read, and which of what is there."""
    parts = parse(reference)
    return Access(parts["host"], parts["name"], "pull", credentials), _newest(parts)


def _push_access(sink: Sink) -> Access:
    reference = parse(sink.repository)
    return Access(reference["host"], reference["name"], "push", sink.credentials)


def _newest(reference: Mapping[str, str]) -> str:
    return reference.get("digest") or reference.get("tag") or "latest"


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

"""Registries, by the OCI distribution specification (v1.1): artefacts and images in and out, streamed.

Own code over httpx rather than the ``oras`` package: model files are gigabytes, and what matters here (streaming tar
layers that exist nowhere on disk, retries with Retry-After, one place that maps every refusal to a reason) is what that
package leaves to its caller.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from slmkit import referrers
from slmkit.access import Access, parse
from slmkit.blobs import EMPTY, Blobs, sha256
from slmkit.downloads import download
from slmkit.layers import Layer
from slmkit.manifests import IMAGE_CONFIG, TITLE, files_of, tars_of
from slmkit.meter import Meter, Unmetered
from slmkit.run import RunFailed
from slmkit.wire import Wire
from slmops import contract
from slmops.contract import Artifact, Reason, Sink, Source

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
VARIANT = "slmops.dev/variant"
ACCEPT = ", ".join((MANIFEST, referrers.INDEX, "application/vnd.docker.distribution.manifest.v2+json"))


class Found(NamedTuple):
    """A manifest that a registry has."""

    digest: str
    manifest: dict[str, Any]
    size: int


@dataclass(frozen=True)
class Platform:
    """A variant of a model, in an image of its own."""

    name: str
    image: Source
    architecture: str


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
        self._blobs = Blobs(self._wire, self.meter)

    # --- in

    def pull(self, source: Source, into: Path, others: Mapping[str, str] | None = None) -> str:
        """Fetch an artefact's files into a folder. Returns the address by digest. ``others``: see ``files_of``."""
        reference = parse(source.uri.removeprefix("oci://"))
        access = Access(reference["host"], reference["name"], "pull", source.credentials)
        digest, manifest, _ = self._manifest(access, _newest(reference))
        into.mkdir(parents=True, exist_ok=True)
        files = files_of(manifest, source.uri, others)
        self.meter.expect(sum(size for _, _, size in files))
        for title, blob, size in files:
            self._blobs.saw(access, blob)
            download(self._wire, access, blob, size, into / title, self.meter.advance)
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
        if sha256(content) != digest:
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{access}: a document does not have digest {digest}")
        return content

    def look(self, reference: str, credentials: contract.Credentials | None = None) -> Found:
        """What an address stands for now."""
        return self._manifest(*_pull_access(reference, credentials))

    def _manifest(self, access: Access, tag: str) -> Found:
        answer = self._wire.request("GET", access, f"manifests/{tag}", headers={"Accept": ACCEPT})
        digest = sha256(answer.content)
        if tag.startswith("sha256:") and tag != digest:
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{access}: the registry answered {digest} when asked for {tag}")
        try:
            manifest = json.loads(answer.content)
        except (ValueError, RecursionError):
            manifest = None
        if not isinstance(manifest, dict):
            raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{access}: the manifest is not a JSON object")
        return Found(digest, manifest, len(answer.content))

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
        new = self._blobs.new(access, max((path.stat().st_size for path in files.values()), default=0))
        layers = []
        for title in sorted(files):
            digest, size = self._blobs.file(access, files[title], new)
            layers.append({"mediaType": "application/octet-stream", "digest": digest, "size": size,
                           "annotations": {TITLE: title}})  # fmt: skip
        return self._publish(access, self._artifact(access, artifact_type, layers, annotations), layers)

    def attach(
        self, sink: Sink, subject: Artifact, artifact_type: str, content: bytes, annotations: Mapping[str, str]
    ) -> Artifact:
        """Publish a document that refers to an artefact in the same repository, and is found from it."""
        access = _push_access(sink)
        kind, body = self._published(access, subject)
        layers = [{"mediaType": artifact_type, "digest": self._blobs.content(access, content), "size": len(content)}]
        manifest = self._artifact(access, artifact_type, layers, annotations)
        manifest["subject"] = {"mediaType": kind, "digest": subject.digest, "size": len(body)}
        return self._publish(access, manifest, layers)

    def _artifact(
        self, access: Access, artifact_type: str, layers: Sequence[Mapping[str, Any]], annotations: Mapping[str, str]
    ) -> dict[str, Any]:
        """The manifest of something that is no image."""
        digest = self._blobs.content(access, EMPTY)
        config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest, "size": len(EMPTY)}
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
        new = self._blobs.new(access, max((layer.plain_size for layer in layers), default=0))
        described, diff_ids = [], []
        for layer in layers:
            measured = self._blobs.layer(access, layer, new)
            extra = {"annotations": {TITLE: layer.title}} if layer.title else {}
            described.append({"mediaType": layer.media_type, "digest": measured.digest, "size": measured.size, **extra})
            diff_ids.append(measured.diff_id)
        return self._image(access, described, diff_ids, annotations, architecture)

    def join_images(
        self, sink: Sink, images: Sequence[Source], annotations: Mapping[str, str], *, architecture: str
    ) -> Artifact:
        """Publish an image of the layers of others, in their order. No layer of the same repository is moved, and of
        another one of the registry only where the registry cannot take it over by itself."""
        access = _push_access(sink)
        described: list[dict[str, Any]] = []
        for source in images:
            reference = parse(source.uri.removeprefix("oci://"))
            there = Access(reference["host"], reference["name"], "pull", source.credentials)
            found = tars_of(self._manifest(there, _newest(reference))[1], source.uri)
            if (there.host, there.name) != (access.host, access.name):
                for layer in found:
                    self._blobs.copy(there, access, layer["digest"], layer["size"])
            described += found
        # They are not compressed, so a layer's digest is its diff id, too.
        return self._image(access, described, [layer["digest"] for layer in described], annotations, architecture)

    def push_index(self, sink: Sink, platforms: Sequence[Platform], annotations: Mapping[str, str]) -> Artifact:
        """Publish an index of images of the same repository, in this order: clients take the first that is for their
        platform. Its size is that of all layers, each once."""
        access = _push_access(sink)
        listed: list[dict[str, Any]] = []
        layers: dict[str, dict[str, Any]] = {}
        for each in platforms:
            reference = parse(each.image.uri.removeprefix("oci://"))
            if (reference["host"], reference["name"]) != (access.host, access.name):
                raise RunFailed(Reason.INVALID_CONFIGURATION, f"{each.image.uri} is not in {sink.repository}")
            digest, manifest, size = self._manifest(access, _newest(reference))
            layers |= {layer["digest"]: layer for layer in tars_of(manifest, each.image.uri, packed=True)}
            listed.append({"mediaType": MANIFEST, "digest": digest, "size": size,
                           "platform": {"architecture": each.architecture, "os": "linux"},
                           "annotations": {VARIANT: each.name}})  # fmt: skip
        index = {"schemaVersion": 2, "mediaType": referrers.INDEX, "manifests": listed,
                 "annotations": dict(sorted(annotations.items()))}  # fmt: skip
        return self._publish(access, index, list(layers.values()))

    def _image(
        self, access: Access, described: Sequence[Mapping[str, Any]], diff_ids: Sequence[str],
        annotations: Mapping[str, str], architecture: str,
    ) -> Artifact:  # fmt: skip
        """Publish an image whose layers are there."""
        config = json.dumps(
            {"architecture": architecture, "os": "linux", "config": {},
             "rootfs": {"type": "layers", "diff_ids": list(diff_ids)}},
            separators=(",", ":"), sort_keys=True,
        ).encode()  # fmt: skip
        digest = self._blobs.content(access, config)
        descriptor = {"mediaType": IMAGE_CONFIG, "digest": digest, "size": len(config)}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor, "layers": list(described),
                    "annotations": dict(sorted(annotations.items()))}  # fmt: skip
        return self._publish(access, manifest, described)

    def _publish(self, access: Access, manifest: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> Artifact:
        body = json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode()
        digest = sha256(body)
        answer = self._wire.request("PUT", access, f"manifests/{digest}", content=body,
                                    headers={"Content-Type": manifest["mediaType"]})  # fmt: skip
        subject = manifest.get("subject")
        if subject is not None and "OCI-Subject" not in answer.headers:
            entry = {"mediaType": MANIFEST, "digest": digest, "size": len(body), "artifactType": manifest["artifactType"],
                     "annotations": manifest["annotations"]}  # fmt: skip
            referrers.keep(self._wire, access, subject["digest"], entry)
        size = sum(int(layer["size"]) for layer in layers)
        return Artifact(reference=f"{access.host}/{access.name}@{digest}", size=size)


def _pull_access(reference: str, credentials: contract.Credentials | None) -> tuple[Access, str]:
    """Where something is read, and which of what is there."""
    parts = parse(reference)
    return Access(parts["host"], parts["name"], "pull", credentials), _newest(parts)


def _push_access(sink: Sink) -> Access:
    reference = parse(sink.repository)
    return Access(reference["host"], reference["name"], "push", sink.credentials)


def _newest(reference: Mapping[str, str]) -> str:
    return reference.get("digest") or reference.get("tag") or "latest"

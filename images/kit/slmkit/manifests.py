"""What a manifest says that a registry answered with: which files it has, and where they may go."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from slmkit.layers import MEDIA_TYPE, MEDIA_TYPE_ZSTD
from slmkit.run import RunFailed
from slmops.contract import Reason

TITLE = "org.opencontainers.image.title"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
IMAGES = (IMAGE_CONFIG, "application/vnd.docker.container.image.v1+json")
"""Types of the configurations that images have and artefacts have not."""
PACKED = re.compile(r"[+.](gzip|zstd|zip)$")
UNPACK = "io.deis.oras.content.unpack"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def files_of(
    manifest: Mapping[str, Any], uri: str, others: Mapping[str, str] | None = None
) -> list[tuple[str, str, int]]:
    """(name in the folder, digest, size) of an artefact's files. A registry can say anything, so all of it is checked.

    ``others``: types of artefacts that are not wanted here, and what they are.
    """
    _refuse_others(manifest, uri, others or {})
    layers = manifest.get("layers")
    if not isinstance(layers, list) or not layers:
        raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{uri} is not an artefact with files")
    found: dict[str, tuple[str, int]] = {}
    for layer in layers:
        try:
            title, digest, size = (layer.get("annotations") or {}).get(TITLE), layer["digest"], layer["size"]
        except (AttributeError, KeyError):
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{uri}: a layer has no digest or no size") from None
        if not title:
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{uri}: a layer has no {TITLE} annotation; it is an image, not an "
                            "artefact of files")  # fmt: skip
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest) or not isinstance(size, int):
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{uri}: a layer has no sha256 digest or no size")
        name = _inside(title, uri)
        _refuse_packed(layer, title, uri)
        if name in found:
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{uri}: {name} is there twice")
        found[name] = (digest, size)
    for name in found:
        if any(str(parent) in found for parent in PurePosixPath(name).parents):
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{uri}: {name} lies below a file")
    return [(name, digest, size) for name, (digest, size) in found.items()]


def _refuse_others(manifest: Mapping[str, Any], uri: str, others: Mapping[str, str]) -> None:
    """What is no artefact of plain files at all, or one of another kind."""
    if isinstance(listed := manifest.get("manifests"), list):
        raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{uri} is an index of {len(listed)} manifests, by architecture or the "
                        "like, and no artefact with files: name one of them by its digest")  # fmt: skip
    config = manifest.get("config")
    kind = config.get("mediaType") if isinstance(config, dict) else None
    if isinstance(kind, str) and kind in IMAGES:
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{uri} is an image, not an artefact of files; name what it was "
                        "made from")  # fmt: skip
    artifact_type = manifest.get("artifactType")
    if isinstance(artifact_type, str) and artifact_type in others:
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{uri} is {others[artifact_type]} ({artifact_type})")


def _refuse_packed(layer: Mapping[str, Any], title: object, uri: str) -> None:
    """Folders, as ``oras`` packs them for others to unpack."""
    kind, said = layer.get("mediaType"), layer.get("annotations") or {}
    if (isinstance(kind, str) and PACKED.search(kind)) or said.get(UNPACK) == "true":
        words = "archives are not unpacked, publish the files themselves"
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{uri}: {str(title)[:128]!r} is packed ({str(kind)[:128]}); {words}")


def tars_of(manifest: Mapping[str, Any], uri: str, packed: bool = False) -> list[dict[str, Any]]:
    """The descriptors of an image's layers, all of them plain tars, or else ``packed`` ones."""
    kinds = (MEDIA_TYPE, MEDIA_TYPE_ZSTD) if packed else (MEDIA_TYPE,)
    layers = manifest.get("layers")
    if not isinstance(layers, list) or not layers:
        raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{uri} is not an image with layers")
    found = []
    for layer in layers:
        try:
            kind, digest, size = layer["mediaType"], layer["digest"], layer["size"]
            title = (layer.get("annotations") or {}).get(TITLE)
        except (AttributeError, KeyError, TypeError):
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{uri}: a layer has no type, digest or size") from None
        if kind not in kinds or not isinstance(digest, str) or not DIGEST.fullmatch(digest) or type(size) is not int:
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{uri}: a layer is not a plain tar with a sha256 digest")
        named = {"annotations": {TITLE: title}} if isinstance(title, str) else {}
        found.append({"mediaType": kind, "digest": digest, "size": size, **named})
    return found


def _inside(title: object, uri: str) -> str:
    """Where a file goes; never outside of the folder, whatever its name says."""
    path = PurePosixPath(title if isinstance(title, str) and title.isprintable() and "\\" not in title else "..")
    long = len(path.parts) > 16 or any(len(part.encode()) > 255 for part in path.parts)
    if path.is_absolute() or ".." in path.parts or not path.parts or long:
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{uri}: the file name {title!r} leaves the folder, or is none")
    return str(path)

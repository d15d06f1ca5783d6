"""Whether something in a registry is signed, with a key or by an identity, asked before any of it is fetched.

A signature is of a manifest's digest, and a manifest names each layer by digest: who can replace a layer can replace the
manifest, and then there is no signature of it. Signatures are looked for among what refers to the digest, by the
registry's list or by the tag that stands in for it, and under the tag ``sha256-<digest>.sig`` that cosign 2 writes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from slmkit.access import parse
from slmkit.registry import Registry
from slmkit.run import RunFailed
from slmops.contract import Reason, Source

SIGNED = "https://sigstore.dev/cosign/sign/v1"
"""Predicate type of a statement that says no more than that its subject is signed."""
PROVENANCE = "https://slsa.dev/provenance/"
"""Of a statement's predicate type, whatever its version."""
seen: dict[str, str] = {}
"""By what key or by whom addresses, by digest, were found to be signed in this process."""
NAMED = 3
"""Others who have signed that a message names."""


@dataclass
class _Evidence:
    """What signatures there are, and what those by the right one say of the digest."""

    proven: set[str] = field(default_factory=set)
    """Predicate types."""
    others: int = 0
    """Not by whom is asked for."""
    elsewhere: int = 0
    """By the right one, and about another digest."""
    why: list[str] = field(default_factory=list)
    """What is known of the others."""

    @property
    def signed(self) -> bool:
        """Whether it is said to be signed."""
        return SIGNED in self.proven

    @property
    def provenance(self) -> bool:
        """Whether it is said how it was made."""
        return any(predicate.startswith(PROVENANCE) for predicate in self.proven)


def verified(source: Source, registry: Registry) -> Source:
    """The source by its digest, once it has shown what it has to. Raises RunFailed otherwise."""
    from slmkit import openers, signing  # cryptography is loaded where something is verified, and nowhere else

    wanted = source.verify
    if wanted is None:
        return source
    if not source.uri.startswith("oci://"):
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"{source.uri}: verify goes with oci:// alone")
    by = openers.opener(wanted)
    address = source.uri.removeprefix("oci://")
    digest = registry.look(address, source.credentials).digest
    parts = parse(address)
    pinned = f"{parts['host']}/{parts['name']}@{digest}"
    found = _Evidence()
    for layer, content in _signatures(registry, pinned, source):
        try:
            if layer["mediaType"] == signing.SIMPLE:
                said = layer.get("annotations")
                signature = said.get(signing.SIMPLE_SIGNATURE) if isinstance(said, dict) else None
                predicate, about = SIGNED, {by.opened_simple(content, signature)}
            else:
                predicate, about = by.opened(content)
        except signing.NotSignedError as error:
            found.others += 1
            if (why := by.told(error)) and why not in found.why:
                found.why.append(why)
            continue
        if digest not in about:
            found.elsewhere += 1
            continue
        found.proven.add(predicate)
        if found.signed and (found.provenance or not wanted.provenance):
            break  # no more is asked of the registry than is needed
    if not found.signed:
        if found.others or found.elsewhere:
            told = f"signatures by others: {found.others}, about something else: {found.elsewhere}"
            told += "".join(f"; {why}" for why in found.why[:NAMED])
            raise RunFailed(Reason.SIGNATURE_INVALID, f"{pinned} is not signed {by.words} ({told})")
        raise RunFailed(Reason.SIGNATURE_MISSING, f"{pinned} is not signed")
    if wanted.provenance and not found.provenance:
        raise RunFailed(Reason.PROVENANCE_MISSING, f"{pinned} has no provenance that is signed {by.words}")
    seen[f"oci://{pinned}"] = by.name
    return source.model_copy(update={"uri": f"oci://{pinned}"})


def _signatures(registry: Registry, pinned: str, source: Source) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Layers that may be a signature of something, with what they hold."""
    from slmkit.signing import BUNDLE, SIMPLE

    for manifest in _manifests(registry, pinned, source):
        layers = manifest.get("layers")
        for layer in layers if isinstance(layers, list) else []:
            if isinstance(layer, dict) and layer.get("mediaType") in (BUNDLE, SIMPLE):
                yield layer, registry.document(pinned, layer, source.credentials)


def _manifests(registry: Registry, pinned: str, source: Source) -> Iterator[dict[str, Any]]:
    yield from registry.about(pinned, source.credentials)
    name, _, digest = pinned.partition("@")
    try:
        yield registry.look(f"{name}:{digest.replace(':', '-')}.sig", source.credentials).manifest
    except RunFailed as failed:
        if failed.reason is not Reason.SOURCE_NOT_FOUND:
            raise

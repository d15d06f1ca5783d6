"""The way back: from something published to what it is made from, and so on to the data, by the registry alone.

What a provenance document says is taken first; where there is none (an image, a registry that lost its referrers), the
annotations say the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from slmkit.facts import INPUT
from slmkit.provenance import MEDIA_TYPE, dependencies
from slmkit.registry import Registry
from slmkit.run import RunFailed


@dataclass(frozen=True)
class Link:
    """One step back."""

    role: str
    uri: str
    depth: int
    known: bool
    """Whether it stood further up already; then it is not followed again."""


def made_of(registry: Registry, reference: str) -> dict[str, str]:
    """Inputs of something published, by role. Raises RunFailed when it is not there."""
    digest = reference.partition("@")[2] or registry.digest_of(reference)
    for document in registry.referrers(reference, MEDIA_TYPE):
        try:
            return dependencies(document, digest)
        except ValueError:
            continue  # a statement of another kind, or about something else
    found = registry.annotations(reference)
    return {key.removeprefix(INPUT): uri for key, uri in sorted(found.items()) if key.startswith(INPUT)}


def walk(registry: Registry, reference: str, depth: int = 1, seen: set[str] | None = None) -> Iterator[Link]:
    """All that something is made from, each followed by what that is made from."""
    seen = set() if seen is None else seen
    try:
        inputs = made_of(registry, reference.removeprefix("oci://"))
    except RunFailed:
        return  # not in a registry: the way ends here
    for role, uri in inputs.items():
        known = uri in seen
        seen.add(uri)
        yield Link(role, uri, depth, known)
        if not known:
            yield from walk(registry, uri, depth + 1, seen)

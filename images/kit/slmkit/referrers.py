"""What refers to something published: the OCI distribution specification 1.1, "Listing Referrers".

A document that names a manifest as its ``subject`` is found from it. Registries that know of this answer a push with
``OCI-Subject`` and list the documents themselves; for the others the client keeps the list, as an index under the tag
``sha256-<digest>`` ("Referrers Tag Schema"). Readers ask the registry first and then look for the tag.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from slmkit.access import Access
from slmkit.wire import Wire

INDEX = "application/vnd.oci.image.index.v1+json"
PAGES = 32
"""A registry that goes on longer than this is not telling of one artefact's documents."""
MOST = 256
"""Documents that are looked at."""
Descriptor = dict[str, Any]


def listed(wire: Wire, access: Access, digest: str) -> list[Descriptor]:
    """Descriptors of all that refers to a manifest, by the registry's list or by the tag's; both where there are two."""
    found = _asked(wire, access, digest)
    by_tag = [] if found else _tagged(wire, access, digest)
    return [*(found or []), *by_tag][:MOST]


def keep(wire: Wire, access: Access, subject: str, descriptor: Mapping[str, Any]) -> None:
    """Add a document to the list under the tag. Somebody else may do the same at that moment, and the last one wins: so
    it is looked at again."""
    for _ in range(3):
        known = _tagged(wire, access, subject)
        if any(each["digest"] == descriptor["digest"] for each in known):
            return
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*known, dict(descriptor)]}
        body = json.dumps(index, separators=(",", ":"), sort_keys=True).encode()
        wire.request("PUT", access, f"manifests/{_tag(subject)}", content=body, headers={"Content-Type": INDEX})


def _asked(wire: Wire, access: Access, digest: str) -> list[Descriptor] | None:
    """The registry's own list; None where it has none."""
    found: list[Descriptor] = []
    path = f"referrers/{digest}"
    for _ in range(PAGES):
        answer = wire.request("GET", access, path, headers={"Accept": INDEX}, accepted=(404,))
        if answer.status_code == 404:
            return None
        found += _manifests(access, answer.content)
        more = answer.links.get("next", {}).get("url", "")
        if not more:
            break
        path = f"referrers/{digest}?{urlsplit(more).query}"
    return found


def _tagged(wire: Wire, access: Access, digest: str) -> list[Descriptor]:
    answer = wire.request("GET", access, f"manifests/{_tag(digest)}", headers={"Accept": INDEX}, accepted=(404,))
    return [] if answer.status_code == 404 else _manifests(access, answer.content)


def _tag(digest: str) -> str:
    return digest.replace(":", "-")


def _manifests(access: Access, content: bytes) -> list[Descriptor]:
    try:
        index = json.loads(content)
        found = [dict(each) for each in index.get("manifests") or []]
        if any(not isinstance(each["digest"], str) for each in found):
            raise TypeError
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        raise access.nonsense("the registry's list of referrers is not an index") from None
    return found

"""Where bytes come from. One function, ``fetch``, and a module for each scheme."""

from pathlib import Path
from typing import Literal

from slmkit import licences, trust
from slmkit.registry import Registry
from slmkit.run import RunFailed
from slmkit.safety import check_model_folder
from slmkit.sources import claim, hub, s3, web
from slmops.contract import Reason, Source

PVC_ROOT = Path("/mnt/pvc")
__all__ = ["check_model_folder", "fetch"]


def fetch(source: Source, into: Path, registry: Registry, kind: Literal["model", "dataset"] = "model") -> str:
    """Bring a source into a folder. Returns its address by digest or revision, which gives the same bytes again.

    What has to be signed is refused before any of it comes. A model's licence is looked for, noted, and held against the
    source's policy. ``kind`` matters to hubs besides, which keep models and data sets apart.
    """
    source = trust.verified(source, registry)
    scheme, _, rest = source.uri.partition("://")
    into.mkdir(parents=True, exist_ok=True)
    if scheme == "oci":
        address = registry.pull(source, into)
    elif scheme in ("https", "http"):
        address = web.download(source, into, registry.plain_http, registry.meter)
    elif scheme == "s3":
        address = s3.download(source, rest, into, registry.plain_http, registry.meter)
    elif scheme == "hf":
        address = hub.snapshot(source, rest, into, kind, registry.meter)
    elif scheme == "pvc":
        address = claim.link(source, rest, into, PVC_ROOT)
    else:
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"{source.uri}: {scheme}:// is not known")
    if kind == "model":
        stated = registry.annotations(address.removeprefix("oci://"), source.credentials) if scheme == "oci" else {}
        licences.judge(source, address, into, stated.get(licences.ANNOTATION))
    return address

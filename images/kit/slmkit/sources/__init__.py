"""Where bytes come from. One function, ``fetch``, and a module for each scheme."""

import shutil
from pathlib import Path
from typing import Literal

from slmkit import licences, trust
from slmkit.registry import Registry
from slmkit.run import RunFailed
from slmkit.safety import check_model_folder
from slmkit.sources import claim, hub, s3, web
from slmops.contract import ADAPTER_TYPE, DATASET_TYPE, MODEL_TYPE, Reason, Source

OTHERS = {
    "model": {DATASET_TYPE: "a data set, not a model", ADAPTER_TYPE: "an adapter, not a model"},
    "adapter": {DATASET_TYPE: "a data set, not an adapter", MODEL_TYPE: "a model, not an adapter"},
    "dataset": {MODEL_TYPE: "a model"},
}
"""Artefacts of ours that are of another kind. An adapter that we have learned is fetched like a data set by whoever adopts
it: it has no licence of its own yet."""
Kind = Literal["model", "adapter", "dataset"]
PVC_ROOT = Path("/mnt/pvc")
__all__ = ["check_model_folder", "fetch"]


def fetch(source: Source, into: Path, registry: Registry, kind: Kind = "model", path: str | None = None) -> str:
    """Bring a source into a folder. Returns its address by digest or revision, which gives the same bytes again.

    What has to be signed is refused before any of it comes. The licence of a model or an adapter is looked for, noted, and
    held against the source's policy. ``kind`` matters besides to hubs, which keep models and data sets apart, and to
    artefacts of ours, which say what they are. ``path``: the one file of a data set that is read; of a volume no other is.
    Of what is refused, or does not come to its end, nothing stays in a folder that was empty.
    """
    source = trust.verified(source, registry)
    into.mkdir(parents=True, exist_ok=True)
    empty = not any(into.iterdir())
    try:
        return _fetch(source, into, registry, kind, path)
    except BaseException:
        for left in into.iterdir() if empty else ():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        raise


def _fetch(source: Source, into: Path, registry: Registry, kind: Kind, path: str | None) -> str:
    scheme, _, rest = source.uri.partition("://")
    if scheme == "oci":
        address = registry.pull(source, into, OTHERS[kind])
    elif scheme in ("https", "http"):
        address = web.download(source, into, registry.plain_http, registry.meter)
    elif scheme == "s3":
        address = s3.download(source, rest, into, registry.plain_http, registry.meter)
    elif scheme == "hf":
        address = hub.snapshot(source, rest, into, "dataset" if kind == "dataset" else "model", registry.meter)
    elif scheme == "pvc":
        address = claim.link(source, rest, into, PVC_ROOT, registry.meter, path)
    else:
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"{source.uri}: {scheme}:// is not known")
    if kind != "dataset":
        stated = registry.annotations(address.removeprefix("oci://"), source.credentials) if scheme == "oci" else {}
        licences.judge(source, address, into, stated.get(licences.ANNOTATION))
    return address

"""What a revision is: everything that shapes the servers' pods, in one short name.

The runtime's own image belongs to it, so an upgrade of the operator is a candidate like any other and has to pass the
gates. So does the retry annotation: to try a failed revision again is to try a new one. To take the annotation away asks
for nothing: what came of it stays wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slmops.api.conditions import ConditionType
from slmops.api.edgedeployment import EdgeDeployment, Pool
from slmops.rollout.people import ROLLBACK, rolled_back
from slmops.settings import Settings
from slmops.state import ANNOTATION_RETRY, LABEL_REVISION, LABEL_TRACK, Manifest, Observed, Problem, digest8

SERVED = "ONNX for CPU"
"""What the edge runtime reads."""


@dataclass(frozen=True)
class Revision:
    """The wanted revision."""

    name: str
    images: dict[str, str]
    """Model image by pool."""
    model: str
    """Name that clients ask for."""
    retry: str | None = None
    """The retry annotation that it came of."""


def wanted(resource: EdgeDeployment, observed: Observed, settings: Settings) -> Revision | Problem:
    """The revision that the spec asks for, or a former one that a person wants instead, or why it cannot be told."""
    asked = _by_spec(resource, observed, settings)
    former = rolled_back(resource, asked.name) if isinstance(asked, Revision) else None
    return asked if former is None else _former(resource, observed, settings, former)


def _former(resource: EdgeDeployment, observed: Observed, settings: Settings, name: str) -> Revision | Problem:
    """A revision that was promoted once: its images, and what the spec says of the servers, have to come to its name."""
    status = resource.status
    known = next((k for k in (status.stable, *status.history) if k is not None and k.revision == name), None)
    if known is None:
        kept = ", ".join(former.revision for former in status.history) or "none"
        return _problem("UnknownRevision", f"the annotation {ROLLBACK} names revision {name}, which is not kept; "
                        f"those are: {kept}", waiting=False)  # fmt: skip
    pools = {pool.name for pool in resource.spec.pools}
    shape = _shape(resource, settings, {pool: image for pool, image in known.images.items() if pool in pools})
    if digest8([*shape, known.retry]) != name:
        return _problem("UnknownRevision", f"the annotation {ROLLBACK} names revision {name}, whose servers differ from "
                        "the spec in more than the model (pools, runtime, or the operator's own edge image): change the "
                        "spec to go back to it", waiting=False)  # fmt: skip
    return Revision(name, known.images, model_name(resource), known.retry)


def _by_spec(resource: EdgeDeployment, observed: Observed, settings: Settings) -> Revision | Problem:
    images: dict[str, str] = {}
    for pool in resource.spec.pools:
        image = _image(resource, pool, observed)
        if isinstance(image, Problem):
            return image
        images[pool.name] = image
    shape = _shape(resource, settings, images)
    asked = resource.metadata.annotations.get(ANNOTATION_RETRY)
    name, retry = _named(resource, observed, shape, asked)
    return Revision(name, images, model_name(resource), retry)


def _shape(resource: EdgeDeployment, settings: Settings, images: dict[str, str]) -> list[object]:
    runtime = resource.spec.runtime
    shape = runtime.dump()
    if runtime.engine == "OnnxRuntimeGenAI":
        del shape[
            "engine"
        ]  # as it was before there was another one: a server on an image of the user's own stays what it is
    return [
        images,
        model_name(resource),
        runtime.image or settings.images.edge,
        shape,
        [pool.model_dump(mode="json", include={"name", "resources", "tolerations"}) for pool in resource.spec.pools],
    ]


def _named(
    resource: EdgeDeployment, observed: Observed, shape: Sequence[object], asked: str | None
) -> tuple[str, str | None]:
    """The name of a revision of this shape, and the retry annotation that it came of.

    The annotation asks once: where it was seen before and nothing of this shape came of it, the spec has gone back to what
    was there before it was set.
    """
    status, name = resource.status, digest8([*shape, asked])
    there, former = _there(observed), [(known.revision, known.retry) for known in status.history]
    now = [known.revision for known in (status.stable, status.candidate) if known is not None]
    if asked is not None and (asked != status.retry or name in (*now, *status.failed)):
        return name, asked
    known = (found for found in [*there, *former] if digest8([*shape, found[1]]) == found[0])
    return next(known, (name, asked))


def _there(observed: Observed) -> list[tuple[str, str | None]]:
    """Revisions of which there are children, each with the retry annotation that it came of; the stable one first."""
    found: dict[tuple[str, str | None], bool] = {}
    for child in observed.children:
        labels, annotations = (child["metadata"].get(key) or {} for key in ("labels", "annotations"))
        if LABEL_REVISION in labels:
            each = labels[LABEL_REVISION], annotations.get(ANNOTATION_RETRY)
            found[each] = found.get(each, False) or labels.get(LABEL_TRACK) == "stable"
    return sorted(found, key=lambda each: not found[each])


def model_name(resource: EdgeDeployment) -> str:
    """What clients put into the field ``model`` of a request."""
    source = resource.spec.model.quantized_model
    return source.name if source else resource.metadata.name


def _image(resource: EdgeDeployment, pool: Pool, observed: Observed) -> str | Problem:
    source = resource.spec.model
    if source.image is not None:
        return source.image
    assert source.quantized_model is not None
    name = source.quantized_model.name
    manifest = observed.references.get(("QuantizedModel", name))
    if manifest is None:
        return _problem("ReferenceNotFound", f"spec.model: QuantizedModel {name} does not exist in this namespace")
    variants = (manifest.get("status") or {}).get("variants") or []
    known = [v["name"] for v in (manifest.get("spec") or {}).get("variants") or []]
    if pool.variant and known and pool.variant not in known:
        return _problem("UnknownVariant", f"spec.pools[{pool.name}].variant: QuantizedModel {name} has no variant "
                        f"{pool.variant}, it has {', '.join(known)}", waiting=False)  # fmt: skip
    variant = _pick(variants, pool)
    if not _current(manifest) or variant is None:
        return _problem("ReferenceNotReady", f"spec.model: waiting for QuantizedModel {name}")
    if variant.get("phase") != "Ready" or not variant.get("reference"):
        return _problem("ReferenceNotReady", f"spec.model: variant {variant['name']} of QuantizedModel {name} is "
                        f"{variant.get('phase')}: {variant.get('message') or 'waiting for it'}")  # fmt: skip
    made = f"{variant.get('format', 'ONNX')} for {variant.get('device', 'CPU')}"
    if made != SERVED:
        return _problem("NothingToUse", f"spec.model: variant {variant['name']} of QuantizedModel {name} is {made}, the "
                        f"edge runtime serves {SERVED}; name another one in spec.pools[{pool.name}].variant",
                        waiting=False)  # fmt: skip
    own = ", ".join(adapter["name"] for adapter in variant.get("adapters") or [])
    if own and resource.spec.runtime.engine == "FoundryLocal":
        return _problem("NothingToUse", f"spec.runtime.engine: FoundryLocal knows no adapters, and variant "
                        f"{variant['name']} of QuantizedModel {name} has {own}; name OnnxRuntimeGenAI, or another variant",
                        waiting=False)  # fmt: skip
    if unsigned := _unsigned(manifest):
        return _problem("ReferenceNotReady", f"spec.model: QuantizedModel {name} is not signed yet: {unsigned}")
    return str(variant["reference"])


def _unsigned(manifest: Manifest) -> str:
    """Why the images may not be used yet, where the QuantizedModel signs what it makes: who looks for the signature before
    it is there would refuse them for good."""
    if not ((manifest.get("spec") or {}).get("output") or {}).get("sign"):
        return ""
    conditions = (manifest.get("status") or {}).get("conditions") or []
    found: Manifest = next((c for c in conditions if c.get("type") == ConditionType.SIGNED), {})
    return "" if found.get("status") == "True" else str(found.get("message") or "waiting for it")


def _pick(variants: list[Manifest], pool: Pool) -> Manifest | None:
    if pool.variant is None:
        return variants[0] if variants else None
    return next((v for v in variants if v.get("name") == pool.variant), None)


def _current(manifest: Manifest) -> bool:
    status = manifest.get("status") or {}
    return bool(status.get("observedGeneration") == manifest["metadata"].get("generation"))


def _problem(reason: str, message: str, waiting: bool = True) -> Problem:
    return Problem(ConditionType.INPUTS_RESOLVED, reason, message, waiting)

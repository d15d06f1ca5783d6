"""What a revision is: everything that shapes the servers' pods, in one short name.

The runtime's own image belongs to it, so an upgrade of the operator is a candidate like any other and has to pass the
gates. So does the retry annotation: to try a failed revision again is to try a new one. To take the annotation away asks
for nothing: what came of it stays wanted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from slmops.api.edgedeployment import EdgeDeployment
from slmops.rollout.fit import told_bytes, too_large
from slmops.rollout.fleet import ClassPool, in_spec, own_settings
from slmops.rollout.people import ROLLBACK, rolled_back
from slmops.rollout.variants import image_of, problem
from slmops.settings import Settings
from slmops.state import ANNOTATION_RETRY, LABEL_REVISION, LABEL_TRACK, Observed, Problem, digest8


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
    choices: dict[str, str] = field(default_factory=dict)
    """Of pools whose variant is chosen, a hash of the images that there were."""


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
        return problem("UnknownRevision", f"the annotation {ROLLBACK} names revision {name}, which is not kept; "
                       f"those are: {kept}", waiting=False)  # fmt: skip
    shape = _shape(resource, settings, known.images, known.choices)
    if digest8([*shape, known.retry]) != name:
        return problem("UnknownRevision", f"the annotation {ROLLBACK} names revision {name}, whose servers differ from "
                       "the spec in more than the model (pools, runtime, or the operator's own edge image): change the "
                       "spec to go back to it", waiting=False)  # fmt: skip
    joined = {p.name: p.image for p in resource.spec.pools if isinstance(p, ClassPool)}
    return Revision(name, joined | known.images, model_name(resource), known.retry, known.choices)


def _by_spec(resource: EdgeDeployment, observed: Observed, settings: Settings) -> Revision | Problem:
    images: dict[str, str] = {}
    for pool in resource.spec.pools:
        image = pool.image if isinstance(pool, ClassPool) else image_of(resource, pool, observed)
        if isinstance(image, Problem):
            return image
        images[pool.name] = image
    sizes = told_bytes(resource, observed, images)
    for pool in resource.spec.pools:
        if why := too_large(resource, pool, sizes.get(pool.name)):
            return problem("ModelTooLarge", f"{why}, or take a smaller variant in spec.pools[{in_spec(pool)}].variant",
                           waiting=False)  # fmt: skip
    choices = {pool.base: pool.among for pool in resource.spec.pools if isinstance(pool, ClassPool)}
    shape = _shape(resource, settings, images, choices)
    asked = resource.metadata.annotations.get(ANNOTATION_RETRY)
    name, retry = _named(resource, observed, shape, asked)
    return Revision(name, images, model_name(resource), retry, choices)


def _shape(
    resource: EdgeDeployment, settings: Settings, images: Mapping[str, str], choices: Mapping[str, str]
) -> list[object]:
    """Which image a class was given is no part of it: a class that joins later makes no other revision."""
    runtime, pools = resource.spec.runtime, resource.spec.pools
    named = {pool.name for pool in pools if not isinstance(pool, ClassPool)}
    shapes = {in_spec(pool): pool for pool in pools}
    server = runtime.dump()
    if runtime.engine == "OnnxRuntimeGenAI":  # as it was before there was another one: such a server stays what it is
        del server["engine"]
    return [
        {pool: image for pool, image in images.items() if pool in named} | dict(choices),
        model_name(resource),
        runtime.image or settings.images.edge,
        server,
        [
            pool.model_dump(mode="json", include={"resources", "tolerations"}) | {"name": name} | own_settings(pool)
            for name, pool in shapes.items()
        ],
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

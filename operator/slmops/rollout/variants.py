"""What a QuantizedModel has for the nodes: its variants that the edge runtime serves, and why there is none yet."""

from slmops.api.base import AUTO
from slmops.api.conditions import ConditionType
from slmops.api.edgedeployment import EdgeDeployment, Pool
from slmops.state import Manifest, Observed, Problem

SERVED = "ONNX for CPU"
"""What the edge runtime reads."""
SETTLED = ("Ready", "Failed", "Rejected")


def image_of(resource: EdgeDeployment, pool: Pool, observed: Observed) -> str | Problem:
    """The image of a pool that names its variant, or takes the first one."""
    source = resource.spec.model
    if source.image is not None:
        return source.image
    found = _source(resource, observed)
    if isinstance(found, Problem):
        return found
    name = _name(resource)
    variants = (found.get("status") or {}).get("variants") or []
    known = [v["name"] for v in (found.get("spec") or {}).get("variants") or []]
    if pool.variant and known and pool.variant not in known:
        return problem("UnknownVariant", f"spec.pools[{pool.name}].variant: QuantizedModel {name} has no variant "
                       f"{pool.variant}, it has {', '.join(known)}", waiting=False)  # fmt: skip
    variant = _pick(variants, pool)
    if not _current(found) or variant is None:
        return problem("ReferenceNotReady", f"spec.model: waiting for QuantizedModel {name}")
    if variant.get("phase") != "Ready" or not variant.get("reference"):
        return problem("ReferenceNotReady", f"spec.model: variant {variant['name']} of QuantizedModel {name} is "
                       f"{variant.get('phase')}: {variant.get('message') or 'waiting for it'}")  # fmt: skip
    if _made(variant) != SERVED:
        return problem("NothingToUse", f"spec.model: variant {variant['name']} of QuantizedModel {name} is "
                       f"{_made(variant)}, the edge runtime serves {SERVED}; name another one in "
                       f"spec.pools[{pool.name}].variant", waiting=False)  # fmt: skip
    if (own := _adapters(variant)) and not _takes_adapters(resource):
        return problem("NothingToUse", f"spec.runtime.engine: FoundryLocal knows no adapters, and variant "
                       f"{variant['name']} of QuantizedModel {name} has {own}; name OnnxRuntimeGenAI, or another variant",
                       waiting=False)  # fmt: skip
    return _lacks_adapter(name, variant, pool) or _unsigned(name, found) or str(variant["reference"])


def to_choose_from(resource: EdgeDeployment, observed: Observed) -> list[Manifest] | Problem:
    """The variants of which a pool takes one by what is measured, once none is built any more."""
    found = _source(resource, observed)
    if isinstance(found, Problem):
        return found
    name = _name(resource)
    variants = (found.get("status") or {}).get("variants") or []
    if not _current(found) or not variants or any(v.get("phase") not in SETTLED for v in variants):
        return problem("ReferenceNotReady", f"spec.model: waiting for QuantizedModel {name}")
    served = [v for v in variants if v.get("phase") == "Ready" and v.get("reference") and _made(v) == SERVED
              and (_takes_adapters(resource) or not _adapters(v))]  # fmt: skip
    if not served:
        return problem("NothingToUse", f"spec.model: no variant of QuantizedModel {name} is ready and {SERVED}, which is "
                       "what the edge runtime serves", waiting=False)  # fmt: skip
    auto = [pool for pool in resource.spec.pools if pool.variant == AUTO]
    lacking = (_lacks_adapter(name, variant, pool) for pool in auto for variant in served)
    return next(filter(None, lacking), None) or _unsigned(name, found) or served


def problem(reason: str, message: str, waiting: bool = True) -> Problem:
    """Why it cannot be told what is wanted."""
    return Problem(ConditionType.INPUTS_RESOLVED, reason, message, waiting)


def _source(resource: EdgeDeployment, observed: Observed) -> Manifest | Problem:
    name = _name(resource)
    manifest = observed.references.get(("QuantizedModel", name))
    return manifest or problem(
        "ReferenceNotFound", f"spec.model: QuantizedModel {name} does not exist in this namespace"
    )


def _name(resource: EdgeDeployment) -> str:
    source = resource.spec.model.quantized_model
    assert source is not None
    return source.name


def _lacks_adapter(name: str, variant: Manifest, pool: Pool) -> Problem | None:
    """What is wrong where a pool names an adapter that its variant does not have."""
    if pool.adapter is None or pool.adapter in _names(variant):
        return None
    return problem("UnknownAdapter", f"spec.pools[{pool.name}].adapter: variant {variant['name']} of QuantizedModel {name} "
                   f"has no adapter {pool.adapter}, it has {_adapters(variant) or 'none'}", waiting=False)  # fmt: skip


def _adapters(variant: Manifest) -> str:
    return ", ".join(_names(variant))


def _names(variant: Manifest) -> list[str]:
    return [adapter["name"] for adapter in variant.get("adapters") or []]


def _takes_adapters(resource: EdgeDeployment) -> bool:
    return resource.spec.runtime.engine != "FoundryLocal"


def _made(variant: Manifest) -> str:
    return f"{variant.get('format', 'ONNX')} for {variant.get('device', 'CPU')}"


def _unsigned(name: str, manifest: Manifest) -> Problem | None:
    """Why the images may not be used yet, where the QuantizedModel signs what it makes: who looks for the signature before
    it is there would refuse them for good."""
    if not ((manifest.get("spec") or {}).get("output") or {}).get("sign"):
        return None
    conditions = (manifest.get("status") or {}).get("conditions") or []
    found: Manifest = next((c for c in conditions if c.get("type") == ConditionType.SIGNED), {})
    if found.get("status") == "True":
        return None
    words = found.get("message") or "waiting for it"
    return problem("ReferenceNotReady", f"spec.model: QuantizedModel {name} is not signed yet: {words}")


def _pick(variants: list[Manifest], pool: Pool) -> Manifest | None:
    if pool.variant is None:
        return variants[0] if variants else None
    return next((v for v in variants if v.get("name") == pool.variant), None)


def _current(manifest: Manifest) -> bool:
    status = manifest.get("status") or {}
    return bool(status.get("observedGeneration") == manifest["metadata"].get("generation"))

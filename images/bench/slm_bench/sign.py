"""Signs what a resource has published, and the documents that tell of it.

Which documents these are the operator says, who had it from the run that made them: whatever else somebody has attached to
an artefact in the meantime is not signed.
"""

import json
from typing import Any

from slmkit import keys, signing
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmops.contract import Artifact, Reason, Report, SignRun

PREDICATES = {
    "application/vnd.cyclonedx+json": "https://cyclonedx.org/bom",
    "application/vnd.slmops.evaluation.v1+json": "https://slmops.dev/evaluation/v1",
}
"""Of documents that are no statements by themselves."""


def sign(run: SignRun, context: Context) -> Report:
    """Attach a signature to each artefact, and an attestation for each of its documents."""
    registry = Registry(run.registry, meter=context)
    key = keys.private_key(run.key)
    context.stage("Signing")
    for _, made in sorted(run.artifacts.items()):
        digest = made.reference.partition("@")[2]
        statements = [(signing.SIGNED, signing.statement(digest, signing.SIGNED, {}))]
        statements += [_attested(registry, run, made, document) for document in made.documents]
        for predicate, said in statements:
            context.check()
            signed = signing.bundle(key, said)
            registry.attach(run.output, made, signing.BUNDLE, signed, signing.annotations(predicate))
    return Report(outcome="Succeeded", signer=keys.fingerprint(key.public_key()))


def _attested(registry: Registry, run: SignRun, made: Artifact, document: str) -> tuple[str, bytes]:
    """A document as a statement about the artefact, and its predicate type."""
    name, _, digest = made.reference.partition("@")
    address = f"{name}@{document}"
    _, manifest = registry.look(address, run.output.credentials)
    layers = manifest.get("layers")
    if (manifest.get("subject") or {}).get("digest") != digest or not isinstance(layers, list) or len(layers) != 1:
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{address} is no document about {made.reference}")
    content = registry.document(address, layers[0], run.output.credentials)
    kind = manifest.get("artifactType")
    said = _json(content, address)
    if kind in PREDICATES:
        return PREDICATES[kind], signing.statement(digest, PREDICATES[kind], said)
    about = [f"sha256:{(subject.get('digest') or {}).get('sha256')}" for subject in said.get("subject") or []]
    if kind != signing.STATEMENT or about != [digest]:
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{address} is no statement about {made.reference}")
    return str(said.get("predicateType")), content


def _json(content: bytes, address: str) -> dict[str, Any]:
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{address} is not a JSON object")
    return said

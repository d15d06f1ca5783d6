"""Signs what a resource has published, and the documents that tell of it.

Which documents these are the operator says, who had it from the run that made them: whatever else somebody has attached to
an artefact in the meantime is not signed.
"""

import json
from typing import Any

from slmkit import signing
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.signers import signer
from slmkit.trust import SIGNED
from slmops.contract import Artifact, Reason, Report, SignRun

PREDICATES = {
    "application/vnd.cyclonedx+json": "https://cyclonedx.org/bom",
    "application/vnd.slmops.evaluation.v1+json": "https://slmops.dev/evaluation/v1",
}
"""Of documents that are no statements by themselves."""


def sign(run: SignRun, context: Context) -> Report:
    """Attach a signature to each artefact, and an attestation for each of its documents."""
    registry = Registry(run.registry, meter=context)
    by = signer(run)
    context.stage("Signing")
    for _, made in sorted(run.artifacts.items()):
        digest = made.reference.partition("@")[2]
        statements = [(SIGNED, signing.statement(digest, SIGNED, {}))]
        statements += [_attested(registry, run, made, document) for document in made.documents]
        for predicate, said in statements:
            context.check()
            registry.attach(run.output, made, signing.BUNDLE, by.bundle(said), signing.annotations(predicate))
    return Report(outcome="Succeeded", signer=by.name or None)


def _attested(registry: Registry, run: SignRun, made: Artifact, document: str) -> tuple[str, bytes]:
    """A document as a statement about the artefact, and its predicate type."""
    name, _, digest = made.reference.partition("@")
    address = f"{name}@{document}"
    manifest = registry.look(address, run.output.credentials).manifest
    subject, layers = manifest.get("subject"), manifest.get("layers")
    about = subject.get("digest") if isinstance(subject, dict) else None
    if about != digest or not isinstance(layers, list) or [type(layer) for layer in layers] != [dict]:
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{address} is no document about {made.reference}")
    content = registry.document(address, layers[0], run.output.credentials)
    kind = manifest.get("artifactType")
    said = _json(content, address)
    if kind in PREDICATES:
        return PREDICATES[kind], signing.statement(digest, PREDICATES[kind], said)
    wanted = {"sha256": digest.removeprefix("sha256:")}
    subjects = said.get("subject")
    told = [each.get("digest") for each in subjects if isinstance(each, dict)] if isinstance(subjects, list) else []
    if kind != signing.STATEMENT or told != [wanted]:
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

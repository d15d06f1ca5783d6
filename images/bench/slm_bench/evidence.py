"""Publishes what the verdict on a rollout rests on: a document that refers to the model image, signed if that is asked."""

import json

from slmkit import signing
from slmkit.registry import Registry
from slmkit.run import Context
from slmkit.signers import signer
from slmops.contract import Artifact, EvidenceRun, Report, Sink

KIND = "application/vnd.slmops.rollout.v1+json"
PREDICATE = "https://slmops.dev/rollout/v1"


def publish(run: EvidenceRun, context: Context) -> Report:
    """Attach the document to each image, once."""
    registry = Registry(run.registry, meter=context)
    by = signer(run) if run.key is not None or run.keyless is not None else None
    content = json.dumps(run.document, sort_keys=True, separators=(",", ":")).encode()
    context.stage("Publishing")
    published: dict[str, Artifact] = {}
    for image in sorted(set(run.images.values())):
        context.check()
        sink = Sink(repository=image.partition("@")[0], credentials=run.credentials)
        about = Artifact(reference=image, size=0)
        published[image] = registry.attach(sink, about, KIND, content, {})
        if by is not None:
            said = signing.statement(about.digest, PREDICATE, run.document)
            registry.attach(sink, about, signing.BUNDLE, by.bundle(said), signing.annotations(PREDICATE))
    return Report(
        outcome="Succeeded",
        artifacts={pool: published[image] for pool, image in run.images.items()},
        signer=by.name if by is not None else None,
    )

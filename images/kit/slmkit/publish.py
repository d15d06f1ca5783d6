"""Publishing something made: the artefact with its annotations and card, and the documents that refer to it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from slmkit import licences
from slmkit.facts import Facts
from slmkit.registry import Registry
from slmkit.run import Context
from slmops.contract import ADAPTER_TYPE, MODEL_TYPE, Artifact, Figures, LabelRun, Sink, TrainRun

NONE: Mapping[str, Figures] = {}
MODEL = "model"
"""Role of what is published among those that were measured."""


def publish(
    registry: Registry,
    run: LabelRun | TrainRun,
    context: Context,
    files: Mapping[str, Path],
    artifact_type: str,
    figures: Mapping[str, Figures] = NONE,
) -> Artifact:
    """Push files as an artefact that says what it is made from, by whom, and how good it is."""
    from slmkit import card  # its libraries are in the images that make something

    facts = Facts(run, dict(context.inputs), artifact_type, figures, licence(context))
    if artifact_type in (MODEL_TYPE, ADAPTER_TYPE):
        folder = context.work / "cards" / facts.kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / card.FILE).write_text(card.card(facts), encoding="utf-8")
        files = {**files, card.FILE: folder / card.FILE}
    made = registry.push_artifact(run.output, files, artifact_type, facts.annotations())
    return describe(registry, run.output, context, made, facts)


def beside(
    registry: Registry, run: TrainRun, context: Context, files: Mapping[str, Path], artifact_type: str
) -> Artifact:
    """Push what people look at beside a model: logs, reports. It says what it is from, and no document refers to it."""
    return registry.push_artifact(run.output, files, artifact_type, about(run, context, artifact_type))


def about(run: TrainRun, context: Context, artifact_type: str) -> dict[str, str]:
    """Annotations of something that has no figures of its own: inputs, their licences, configuration, code."""
    facts = Facts(run, dict(context.inputs), artifact_type, NONE, licence(context))
    return context.lineage(run) | facts.annotations()


def licence(context: Context) -> str:
    """What the model that a run began with is licensed under, as far as that was found."""
    origin = context.inputs.get("base") or context.inputs.get("model") or ""
    found = licences.seen.get(origin)
    return found.expression if found is not None else ""


def describe(registry: Registry, sink: Sink, context: Context, made: Artifact, facts: Facts) -> Artifact:
    """Push what refers to something published: its provenance, its bill of materials and, where it was measured, the
    figures. Returns it with the digests of these documents, so that whoever signs them has them from us."""
    from slmkit import bom, evaluated, provenance

    now = datetime.now(UTC)
    told = {provenance.PREDICATE_TYPE: provenance.PREDICATE}
    documents = [
        registry.attach(sink, made, provenance.MEDIA_TYPE, provenance.statement(made, facts, context.began, now), told),
        registry.attach(sink, made, bom.MEDIA_TYPE, bom.bom(made, facts, now), {}),
    ]
    if MODEL in facts.figures:
        report = evaluated.report(made, facts, now)
        documents.append(registry.attach(sink, made, evaluated.MEDIA_TYPE, report, {}))
    return made.model_copy(update={"documents": tuple(d.reference.partition("@")[2] for d in documents)})

"""Adapters as layers of images: each lies below ``/adapters/<name>``, so that an image of several is a folder of several.

A layer holds the weights and their configuration alone. What is said of an adapter (card, figures, lineage) belongs to its
own artefact: equal adapters are equal layers, whenever they were made.
"""

from collections.abc import Mapping
from pathlib import Path

from slmkit.facts import IMAGE_TYPE, Facts
from slmkit.layers import Layer
from slmkit.publish import about, describe, licence
from slmkit.registry import Registry
from slmkit.run import Context
from slmops.contract import Artifact, JoinRun, Report, TrainRun

FOLDER = "/adapters"
PLATFORM = "amd64"
"""An image has to name an architecture, also where it holds none's code."""


def publish_layer(registry: Registry, run: TrainRun, context: Context, files: Mapping[str, Path]) -> Artifact:
    """Publish one adapter as an image of one layer."""
    placed = {f"{FOLDER}/{run.layer}/{name}": path for name, path in files.items()}
    layer = Layer(placed, title=run.layer)
    return registry.push_image(run.output, [layer], about(run, context, IMAGE_TYPE), architecture=PLATFORM)


def join(run: JoinRun, context: Context) -> Report:
    """Publish the layers of several adapters, which the repository has already, as one image."""
    registry = Registry(run.registry, meter=context)
    context.stage("Publishing")
    members = sorted(run.adapters.items())
    context.inputs |= {f"adapter.{name}": member.adapter.uri for name, member in members}
    facts = Facts(run, dict(context.inputs), IMAGE_TYPE, {}, licence(context))
    image = registry.join_images(
        run.output, [member.layer for _, member in members], facts.annotations(), architecture=PLATFORM
    )
    image = describe(registry, run.output, context, image, facts)
    return Report(outcome="Succeeded", artifacts={"image": image})

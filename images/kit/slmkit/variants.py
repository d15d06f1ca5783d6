"""Variants of a model for several platforms under one address: whoever pulls it gets the first that is for its own."""

from slmkit.facts import INDEX_TYPE, Facts
from slmkit.publish import describe, licence
from slmkit.registry import Platform, Registry
from slmkit.run import Context
from slmops.contract import IndexRun, Report


def index(run: IndexRun, context: Context) -> Report:
    """Publish the index of images that the repository has."""
    registry = Registry(run.registry, meter=context)
    context.stage("Publishing")
    context.inputs |= {f"variant.{each.name}": each.image.uri for each in run.variants}
    facts = Facts(run, dict(context.inputs), INDEX_TYPE, {}, licence(context))
    platforms = [Platform(each.name, each.image, each.architecture) for each in run.variants]
    made = registry.push_index(run.output, platforms, facts.annotations())
    made = describe(registry, run.output, context, made, facts)
    return Report(outcome="Succeeded", artifacts={"index": made})

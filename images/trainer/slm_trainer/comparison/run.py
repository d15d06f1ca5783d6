"""A run that lays variants side by side and publishes what it sees."""

from slm_trainer import pages
from slm_trainer.comparison.page import page
from slmkit.registry import Registry
from slmkit.run import Context
from slmops.contract import REPORT_TYPE, CompareRun, Report


def compare(run: CompareRun, context: Context) -> Report:
    """Publish ``comparison.json`` and ``comparison.html``; the same variants give the same bytes."""
    context.stage("Comparing")
    name = run.annotations.get("slmops.dev/name", run.run)
    content = {"name": name, **run.model_dump(mode="json", include={"measure", "rows"})}
    files = pages.write(context.work / "comparison", "comparison", content, page(run, name))
    context.stage("Publishing")
    made = Registry(run.registry, meter=context).push_artifact(run.output, files, REPORT_TYPE, context.lineage(run))
    return Report(outcome="Succeeded", artifacts={"comparison": made})

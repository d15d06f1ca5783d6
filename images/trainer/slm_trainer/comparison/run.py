"""A run that lays variants side by side and publishes what it sees."""

import json

from slm_trainer.comparison.page import page
from slmkit.registry import Registry
from slmkit.run import Context
from slmops.contract import REPORT_TYPE, CompareRun, Report


def compare(run: CompareRun, context: Context) -> Report:
    """Publish ``comparison.json`` and ``comparison.html``; the same variants give the same bytes."""
    context.stage("Comparing")
    name = run.annotations.get("slmops.dev/name", run.run)
    content = {"name": name, **run.model_dump(mode="json", include={"measure", "rows"})}
    texts = {"comparison.json": json.dumps(content, ensure_ascii=False, indent=1), "comparison.html": page(run, name)}
    folder = context.work / "comparison"
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        (folder / file).write_text(text + "\n", encoding="utf-8")
    context.stage("Publishing")
    files = {file: folder / file for file in texts}
    made = Registry(run.registry, meter=context).push_artifact(run.output, files, REPORT_TYPE, context.lineage(run))
    return Report(outcome="Succeeded", artifacts={"comparison": made})

"""A run's report: bounded, and left where the kubelet finds it."""

import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

from slmops.contract import REPORT_LIMIT, TERMINATION_PATH, Reason, Report, Round, TargetFigures


def failed(reason: Reason, message: str) -> Report:
    """Of a run that did not end well."""
    return Report(outcome="Failed", reason=reason, message=bounded(message, 1024))


def bounded(text: str, length: int) -> str:
    """One line of valid text: file names and what others answer can hold halves of characters."""
    return " ".join(text.encode("utf-8", "replace").decode().split())[:length]


def write_report(report: Report) -> Report:
    """Leave the report where the kubelet finds it; shortened until it fits, and always valid JSON. Returns what was
    written. The inputs (adapters first, of which there may be many) and the curve go last: what was published has them
    too. Of a benchmark's rounds nobody needs more than the medians once their intervals are told."""
    shorter: list[dict[str, Any]] = [{"message": report.message[:keep]} for keep in (512, 128, 0)]
    few = {role: uri for role, uri in report.inputs.items() if not role.startswith("adapter.")}
    short = {"message": "", "targets": {name: _medians(target) for name, target in report.targets.items()}}
    changes = [
        {},
        *shorter,
        short,
        short | {"inputs": few},
        short | {"inputs": {}, "licenses": {}, "verified": {}},
    ]
    if report.learning is not None:
        changes.append(changes[-1] | {"learning": report.learning.model_copy(update={"curve": ()})})
    candidates = [report.model_copy(update=change) for change in changes]
    candidates.append(failed(Reason.INTERNAL_ERROR, "the report does not fit into a termination message"))
    written, text = next(
        (candidate, text)
        for candidate in candidates
        if len((text := candidate.model_dump_json(exclude_defaults=True)).encode()) <= REPORT_LIMIT
    )
    path = Path(os.environ.get("TERMINATION_PATH", TERMINATION_PATH))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"{path}: {error.strerror}; the report is {text}", file=sys.stderr)
    return written


def _medians(target: TargetFigures) -> TargetFigures:
    """All rounds as one."""
    found = {
        name: median(getattr(each, name) for each in target.rounds) for name in Round.model_fields if target.rounds
    }
    return target.model_copy(update={"rounds": (Round(**found),) if found else ()})

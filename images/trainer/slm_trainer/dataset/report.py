"""What became of a data set, for machines (``report.json``) and for people (``report.html``).

The same data give the same report, letter by letter: it is part of artefacts that are named by their digest. The page
needs nothing from elsewhere, and may run nothing: texts of records are in it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2

from slm_trainer.dataset.pictures import bars
from slm_trainer.dataset.tally import Tally
from slmops.contract import Filters

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
WHY = {
    "Leaked": "The prompt is in the held-out records, too.",
    "Duplicate": "The prompt was there before.",
    "NearDuplicate": "The prompt is almost the same as an earlier one.",
    "TooShort": "Prompt and answer together have fewer words than minTokens.",
    "TooLong": "Prompt and answer together have more words than maxTokens.",
    "SequenceTooLong": "Longer than maxSequenceLength once it is encoded.",
    "InvalidLabel": "The answer is none of the labels.",
    "Unbalanced": "There were enough records of its kind.",
    "Disagreement": "Too few of the teacher's samples gave the same answer.",
    "NoAnswer": "There is no answer to learn from.",
    "EmptyAnswer": "The answer is empty.",
}


FEW = 64
"""Different answers up to which their balance is shown however often each one is given."""
BARS = 64
"""Of a picture at most; all of them are in ``report.json``."""


@dataclass(frozen=True)
class Subject:
    """What a report is about."""

    name: str
    """Of the run."""
    sources: Mapping[str, str]
    """What each source was resolved to."""
    parts: Mapping[str, int]
    """Records in each file or part of the result."""
    filters: Filters | None


def write_report(tally: Tally, subject: Subject, folder: Path) -> dict[str, Path]:
    """Write both files. Returns them by name."""
    content = as_data(tally, subject)
    files = {"report.json": json.dumps(content, ensure_ascii=False, indent=1), "report.html": page(content)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n", encoding="utf-8")
    return {name: folder / name for name in files}


def as_data(tally: Tally, subject: Subject) -> dict[str, Any]:
    """The report as JSON."""
    top = max(tally.lengths, default=-1)
    return {
        "name": subject.name,
        "sources": dict(sorted(subject.sources.items())),
        "filters": _filters(subject.filters),
        "read": tally.read,
        "kept": tally.kept,
        "parts": dict(subject.parts),
        "dropped": dict(_ordered(tally.dropped)),
        "lengths": [
            {"from": (1 << bucket >> 1) + 1 if bucket else 0, "to": 1 << bucket, "records": tally.lengths[bucket]}
            for bucket in range(min(tally.lengths, default=0), top + 1)
        ],
        "answers": _balance(tally.answers, bool(subject.filters and subject.filters.labels)),
        "categories": _balance(tally.categories),
        "examples": {
            reason: [{"prompt": prompt, "answer": answer} for prompt, answer in shown]
            for reason, shown in sorted(tally.drops.items())
        },
    }


def _filters(wanted: Filters | None) -> dict[str, Any]:
    """Those that do something."""
    found = wanted.model_dump(mode="json") if wanted else {}
    return {name: value for name, value in found.items() if value}


def _ordered(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(((name, count) for name, count in counts.items() if count), key=lambda item: (-item[1], item[0]))


def _balance(counts: Mapping[str, int] | None, declared: bool = False) -> dict[str, int] | None:
    """Most frequent first; None where there is nothing to balance: one that all records share, or so many that they are no
    labels, unless somebody declared them to be some."""
    if counts is None or len(counts) < 2:
        return None
    labels = declared or len(counts) <= FEW or 2 * len(counts) <= sum(counts.values())
    return dict(_ordered(counts)) if labels else None


def page(content: Mapping[str, Any]) -> str:
    """The report as a page."""
    lengths = {_span(bucket["from"], bucket["to"]): bucket["records"] for bucket in content["lengths"]}
    pictures = {
        "lengths": bars("lengths", lengths) if lengths else "",
        "answers": bars("answers", _first(content["answers"])) if content["answers"] else "",
        "categories": bars("categories", _first(content["categories"])) if content["categories"] else "",
    }
    return ENVIRONMENT.get_template("page.html.jinja").render(content, why=WHY, pictures=pictures, bars=BARS)


def _first(counts: Mapping[str, int]) -> dict[str, int]:
    """What fits into a picture."""
    return dict(islice(counts.items(), BARS))


def _span(begin: int, end: int) -> str:
    return str(end) if begin >= end else f"{begin:,} to {end:,}"

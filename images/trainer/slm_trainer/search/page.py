"""A search for machines (``search.json``) and for people (``search.html``): all trials, the best of them, a picture.

The same search gives the same page, letter by letter. The page needs nothing from elsewhere, and may run nothing.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from slm_trainer.search.pictures import trials
from slmops.contract import Search, Tried

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def write_page(search: Search, name: str, folder: Path) -> dict[str, Path]:
    """Write both files. Returns them by name."""
    content = as_data(search, name)
    files = {"search.json": json.dumps(content, ensure_ascii=False, indent=1), "search.html": page(content)}
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(text + "\n", encoding="utf-8")
    return {file: folder / file for file in files}


def as_data(search: Search, name: str) -> dict[str, Any]:
    """The page as JSON."""
    rows = [
        {"trial": number, "outcome": _outcome(tried), "value": tried.result.value if tried.result else None,
         "parameters": dict(zip((p.name for p in search.space), tried.parameters, strict=True)),
         "measured": list(tried.result.measured) if tried.result else []}
        for number, tried in enumerate(search.tried)
    ]  # fmt: skip
    settings = search.model_dump(mode="json", exclude={"tried", "space"})
    space = [p.model_dump(mode="json", exclude_defaults=True) for p in search.space]
    values = [row["value"] for row in rows]
    found = _best_so_far(values, search.direction)[-1]
    best = None if found is None else values.index(found)
    return {"name": name, **settings, "space": space, "trials": rows, "best": best}


def page(content: dict[str, Any]) -> str:
    """The page as HTML."""
    values = [row["value"] for row in content["trials"]]
    drawn = content["best"] is not None  # of failures alone there is nothing to draw
    picture = trials("trials", values, _best_so_far(values, content["direction"])) if drawn else ""
    return ENVIRONMENT.get_template("page.html.jinja").render(content, picture=picture)


def _outcome(tried: Tried) -> str:
    if tried.result is None:
        return "failed"
    return "pruned" if tried.result.pruned else "succeeded"


def _best_so_far(values: Sequence[float | None], direction: str) -> list[float | None]:
    """The best value after each trial; None before the first that has one."""
    found: list[float | None] = []
    for value in values:
        known = [v for v in (value, *found[-1:]) if v is not None]
        found.append((min if direction == "Minimize" else max)(known) if known else None)
    return found

"""What is published for machines, as JSON, and for people, as a page: one look for all. A page needs nothing from
elsewhere, and may run nothing: texts of records and names that others gave are in it."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

HERE = Path(__file__).parent
"""Where the frame of all pages is."""


def write(folder: Path, name: str, content: Mapping[str, Any], page: str) -> dict[str, Path]:
    """Write ``name.json`` and ``name.html``. Returns them by name."""
    files = {f"{name}.json": json.dumps(content, ensure_ascii=False, indent=1), f"{name}.html": page}
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(text + "\n", encoding="utf-8")
    return {file: folder / file for file in files}


def render(template: Path, content: Mapping[str, Any], **more: object) -> str:
    """A page as HTML. Texts are escaped; what a template names has to be there."""
    return _environment(template.parent).get_template(template.name).render(content, **more)


@cache
def _environment(folder: Path) -> jinja2.Environment:
    """It keeps what it has compiled."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, HERE]), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip

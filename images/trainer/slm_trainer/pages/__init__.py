"""Pages that stand beside what was made, one look for all. They need nothing from elsewhere, and may run nothing: texts of
records and names that others gave are in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

HERE = Path(__file__).parent
TEMPLATE = "page.html.jinja"


def render(folder: Path, content: Mapping[str, Any]) -> str:
    """The page of the template in this folder, as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, HERE]), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(content)

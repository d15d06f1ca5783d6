"""Bars as SVG, to stand inside of a page: no script, no font and no style from elsewhere."""

import sys
from collections.abc import Mapping
from typing import Any

import pygal
from pygal.style import Style

# pygal leaves a finder for its plugins behind, of a kind that Python warns of at every import since.
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]
MARK, FAINT = "#2f6f6a", "#9aa5af"


def style(*colors: str) -> Style:
    """How all pictures look; a colour for each series."""
    return Style(
        background="transparent", plot_background="transparent", colors=colors, foreground="#1d2730",
        foreground_strong="#1d2730", foreground_subtle=FAINT, font_family="system-ui, sans-serif", label_font_size=12,
        major_label_font_size=12, opacity="1", opacity_hover="1", transition="0s",
    )  # fmt: skip


def bars(name: str, counts: Mapping[str, int]) -> str:
    """A bar for each entry, in the order given. ``name`` tells the picture from others on the page."""
    chart = pygal.HorizontalBar(
        style=style(MARK), js=(), show_legend=False, width=720, height=24 + 26 * len(counts), margin=6, show_x_labels=False,
        show_y_guides=False, show_x_guides=False, spacing=4, disable_xml_declaration=True,
        explicit_size=False, rounded_bars=2, pretty_print=False, truncate_label=-1,
    )  # fmt: skip
    chart.uuid = name  # made up anew for each picture otherwise: the same data are to give the same bytes
    chart.add_xml_filter(without_scripts)
    # Horizontal bars are drawn from below; people read from above.
    chart.x_labels = [f"{_short(entry)} · {counts[entry]:,}" for entry in counts][::-1]
    chart.add("", list(counts.values())[::-1])
    return str(chart.render(is_unicode=True))


def _short(text: str, length: int = 40) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def without_scripts(root: Any) -> Any:
    """A filter for pictures: a page may run nothing."""
    for parent in list(root.iter()):
        for child in [child for child in parent if str(child.tag).endswith("script")]:
            parent.remove(child)
    return root

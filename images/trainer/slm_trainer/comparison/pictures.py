"""Quality against a cost as SVG, to stand inside of a page."""

from collections.abc import Sequence

import pygal

from slm_trainer.pages.pictures import FAINT, MARK, style, without_scripts

Point = tuple[str, float, float, bool]
"""Label, cost, quality from 0 to 1, and whether no other one is as good in everything and better in something."""


def scatter(name: str, cost: str, measure: str, points: Sequence[Point]) -> str:
    """A dot for each variant; those that nothing beats in their own colour."""
    costs, values = [x for _, x, _, _ in points], [quality for _, _, quality, _ in points]
    chart = pygal.XY(
        style=style(MARK, FAINT), js=(), width=720, height=320, margin=6, dots_size=5, stroke=False,
        disable_xml_declaration=True, explicit_size=False, pretty_print=False, legend_at_bottom=True,
        x_title=cost, y_title=measure, xrange=_room(costs, 0.3), range=_room(values, 0.1), show_y_guides=False,
        x_value_formatter=lambda value: f"{value:,.4g}",
        value_formatter=lambda value: f"{value:.1%}", print_labels=True,
    )  # fmt: skip
    chart.uuid = name  # made up anew for each picture otherwise: the same data are to give the same bytes
    chart.add_xml_filter(without_scripts)
    for title, wanted in (("no better one", True), ("there is a better one", False)):
        chart.add(
            title, [{"value": (x, quality), "label": label} for label, x, quality, best in points if best is wanted]
        )
    return str(chart.render(is_unicode=True))


def _room(values: Sequence[float], share: float) -> tuple[float, float]:
    """From where to where an axis goes: dots at its ends, and their labels on the right, would be cut off."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    return low - span * 0.1, high + span * share

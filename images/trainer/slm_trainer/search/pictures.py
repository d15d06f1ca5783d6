"""The trials of a search as SVG, to stand inside of a page."""

from collections.abc import Sequence

import pygal

from slm_trainer.pages.pictures import FAINT, MARK, style, without_scripts

MOST_LABELS = 20


def trials(name: str, values: Sequence[float | None], best: Sequence[float | None]) -> str:
    """A dot for each trial that came to a value, and the best so far as a line."""
    known = [value for value in values if value is not None]
    chart = pygal.Line(
        style=style(FAINT, MARK), js=(), width=720, height=300, margin=6, dots_size=4, disable_xml_declaration=True,
        explicit_size=False, pretty_print=False, legend_at_bottom=True, value_formatter=lambda value: f"{value:.4g}",
        # Losses of bad trials are many times those of good ones.
        logarithmic=min(known) > 0, show_minor_x_labels=False,
        x_labels_major_every=-(-len(values) // MOST_LABELS),
    )  # fmt: skip
    chart.uuid = name  # made up anew for each picture otherwise: the same data are to give the same bytes
    chart.add_xml_filter(without_scripts)
    chart.x_labels = [str(number) for number in range(len(values))]
    chart.add("trials", [*values], stroke=False)
    chart.add("best so far", [*best], show_dots=False)
    return str(chart.render(is_unicode=True))

"""The comparison as a page: a table, and quality against each cost as a picture."""

from collections.abc import Callable
from pathlib import Path

from slm_trainer import pages
from slm_trainer.comparison.pictures import scatter
from slmops.contract import Compared, CompareRun

TEMPLATE = Path(__file__).with_name("page.html.jinja")
MILLI, MIB = 1e3, 1 / 2**20
COSTS: dict[str, Callable[[Compared], float | None]] = {
    "weights (MiB)": lambda row: row.weight_bytes * MIB,
    "time of an answer (ms)": lambda row: None if row.seconds is None else row.seconds * MILLI,
    "memory (MiB)": lambda row: None if row.memory_bytes is None else row.memory_bytes * MIB,
}


def page(run: CompareRun, name: str) -> str:
    """The page as HTML."""
    table = [
        {"name": row.name, "precision": row.precision, "outcome": row.outcome, "optimal": row.optimal, "image": row.image,
         "quality": f"{row.quality:.1%}", "costs": [_number(cost(row)) for cost in COSTS.values()]}
        for row in run.rows
    ]  # fmt: skip
    pruned = [
        {"name": row.name, "precision": row.precision, "sparsity": f"{row.pruned.sparsity:.1%}",
         "similarity": f"{row.pruned.similarity:.4f}",
         "sizes": [_number(size * MIB) for size in (row.pruned.packed_bytes, row.pruned.dense_packed_bytes)]}
        for row in run.rows if row.pruned
    ]  # fmt: skip
    pictures = {
        title: scatter(f"cost-{number}", title, run.measure, points)
        for number, (title, cost) in enumerate(COSTS.items())
        if len(
            points := [(_label(row), x, row.quality, row.optimal) for row in run.rows if (x := cost(row)) is not None]
        )
        > 1
    }
    content = {"name": name, "measure": run.measure, "table": table, "costs": list(COSTS), "pruned": pruned,
               "pictures": pictures}  # fmt: skip
    return pages.render(TEMPLATE, content)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"


def _label(row: Compared) -> str:
    return f"{row.name} {row.precision}"

"""Figures, targets, and the table that they make."""

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures of {} -->", "<!-- end of {} -->"
"""Around the table of one benchmark: whoever runs one of them leaves the others' figures alone."""


@dataclass(frozen=True)
class Figure:
    """Something measured."""

    name: str
    target: str
    """Empty: shown beside the others, nothing is asked of it."""
    value: str
    met: bool = True


def mb(count: float) -> str:
    """Bytes for people. The targets are in MB, powers of ten."""
    return f"{count / 1e6:.1f} MB"


def table(figures: Sequence[Figure]) -> str:
    """A table that reads well as text and as Markdown."""
    rows = [("Figure", "Target", "Measured", "Met"), *((f.name, f.target, f.value, _met(f)) for f in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
             for row in rows]  # fmt: skip
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _met(figure: Figure) -> str:
    if not figure.target:
        return ""
    return "yes" if figure.met else "**no**"


def check_page(benchmarks: Iterable[str]) -> None:
    """Raise RuntimeError where the page has no place for one of them: said before an hour of measuring, not after it."""
    text = PAGE.read_text()
    for name in benchmarks:
        begin, end = BEGIN.format(name), END.format(name)
        if not 0 <= text.find(begin) < text.find(end):
            raise RuntimeError(f"{PAGE} has lost its markers {begin} and {end}; put them where the table is to be")


def write(found: Mapping[str, Sequence[Figure]], command: str) -> None:
    """Put a table for each benchmark into the page, with where and when it was made."""
    check_page(found)
    made = f"`{command}`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {_commit()}, on {machine()}."
    text = PAGE.read_text()
    for name, figures in found.items():
        head, rest = text.split(BEGIN.format(name), 1)
        block = f"{BEGIN.format(name)}\n\n{made}\n\n{table(figures)}\n\n{END.format(name)}"
        text = head + block + rest.split(END.format(name), 1)[1]
    PAGE.write_text(text)


def machine() -> str:
    """Processor, cores and memory."""
    cpu = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpu, re.MULTILINE)
    cores = len(re.findall(r"^processor\s*:", cpu, re.MULTILINE))
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    gib = int(memory[1]) / 2**20 if memory else 0
    return f"{model[1].strip() if model else 'an unnamed processor'}, {cores} cores, {gib:.0f} GiB"


def _commit() -> str:
    said = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True,
                          check=False)  # fmt: skip
    return said.stdout.strip() or "unknown"

"""The table of failures in docs/troubleshooting.md says what the code does: tests, reasons, remedies."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from slmops.contract import Reason
from slmops.status.remedies import REMEDIES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text()
SECTION = TEXT.partition("## Failures that are tests\n")[2].partition("\n## ")[0]
ROW = re.compile(r"\| (?P<cause>[^|]+) \| `(?P<reason>\w+)` \| (?P<remedy>[^|]+) \| `(?P<test>\w+)` in "
                 r"\[(?P<shown>[^\]]+)\]\(\.\./(?P<file>[^)]+)\) \|")  # fmt: skip
LINES = [line for line in SECTION.splitlines() if line.startswith("| ") and not line.startswith("| Cause ")]
ROWS = [match for line in LINES if (match := ROW.fullmatch(line))]


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LIST = TEXT.partition("## While a Job works")[2].partition("\n## ")[0]
REASONS = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", LIST, re.MULTILINE)


@cache
def _parts(file: str) -> dict[str, ast.stmt]:
    """What a file defines at its top level, by name."""
    found: dict[str, ast.stmt] = {}
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    return found


def names_in(file: str) -> set[str]:
    return {name for name, node in _parts(file).items() if isinstance(node, FUNCTIONS)}


def told_by(file: str, test: str) -> set[str]:
    """Texts and members of Reason in a test, its parameters, fixtures and helpers of the same file."""
    parts, left, seen, told = _parts(file), [test], set[str](), set[str]()
    while left:
        name = left.pop()
        if name in seen or name not in parts:
            continue
        seen.add(name)
        for node in ast.walk(parts[name]):
            if isinstance(node, ast.Name):
                left.append(node.id)
            elif isinstance(node, ast.arg):
                left.append(node.arg)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                told.add(node.value)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason":
                told.add(Reason[node.attr])
    return told


def test_every_line_is_a_row_and_there_are_enough() -> None:
    assert [line for line in LINES if not ROW.fullmatch(line)] == []
    assert len(ROWS) >= 25
    causes = [row["cause"] for row in ROWS]
    assert len(set(causes)) == len(causes)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["cause"][:40])
def test_a_row_names_a_test_that_exists_and_the_remedy_that_is_printed(row: re.Match[str]) -> None:
    assert row["file"] == f"tests/{row['shown']}"
    assert row["test"].startswith("test_")
    assert row["test"] in names_in(row["file"])
    assert row["remedy"] == REMEDIES[row["reason"]]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["cause"][:40])
def test_the_test_of_a_row_is_about_its_reason(row: re.Match[str]) -> None:
    """The reason stands in the test, or in what it uses: as the contract's member or as the word that a user reads."""
    assert row["reason"] in told_by(row["file"], row["test"])


@pytest.mark.parametrize(("reason", "remedy"), [pair for pair in REASONS if pair[0] in REMEDIES])
def test_the_list_of_reasons_has_the_remedies_that_are_printed(reason: str, remedy: str) -> None:
    assert remedy == REMEDIES[reason]


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_that_a_run_ends_with_has_a_row(reason: Reason) -> None:
    assert any(row["reason"] == reason for row in ROWS)


def test_every_reason_that_a_run_ends_with_is_in_that_list() -> None:
    assert {reason for reason, _ in REASONS} >= set(Reason)


@pytest.mark.parametrize("reason", REMEDIES)
def test_every_remedy_stands_in_the_documentation(reason: str) -> None:
    assert f"| `{reason}` |" in TEXT

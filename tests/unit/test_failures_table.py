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


@cache
def _names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, functions)}


def test_every_line_is_a_row_and_there_are_enough() -> None:
    assert [line for line in LINES if not ROW.fullmatch(line)] == []
    assert len(ROWS) >= 25
    causes = [row["cause"] for row in ROWS]
    assert len(set(causes)) == len(causes)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["cause"][:40])
def test_a_row_names_a_test_that_exists_and_the_remedy_that_is_printed(row: re.Match[str]) -> None:
    assert row["file"] == f"tests/{row['shown']}"
    assert row["test"].startswith("test_")
    assert row["test"] in _names_in(row["file"])
    assert row["remedy"] == REMEDIES[row["reason"]]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["cause"][:40])
def test_the_test_of_a_row_is_about_its_reason(row: re.Match[str]) -> None:
    """The reason stands in the test's file: as the contract's member or as the word that a user reads."""
    member = next((f"Reason.{reason.name}" for reason in Reason if reason == row["reason"]), row["reason"])
    source = (ROOT / row["file"]).read_text()
    assert member in source or f'"{row["reason"]}"' in source


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_that_a_run_ends_with_has_a_row(reason: Reason) -> None:
    assert any(row["reason"] == reason for row in ROWS)


@pytest.mark.parametrize("reason", REMEDIES)
def test_every_remedy_stands_in_the_documentation(reason: str) -> None:
    assert f"| `{reason}` |" in TEXT

"""The table of attacks in docs/security.md: each is made by a test that exists, which sees the words."""

import re
from pathlib import Path

import pytest

from tests.unit.test_failures_table import names_in, told_by

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text()
SECTION = TEXT.partition("### Attacks that are tests\n")[2].partition("\n## ")[0]
ROW = re.compile(r"\| (?P<attack>[^|]+) \| `(?P<words>[^|`]+)` \| `(?P<test>\w+)` in "
                 r"\[(?P<shown>[^\]]+)\]\(\.\./(?P<file>[^)]+)\) \|")  # fmt: skip
LINES = [line for line in SECTION.splitlines() if line.startswith("| ") and not line.startswith("| Attack ")]
ROWS = [match for line in LINES if (match := ROW.fullmatch(line))]


def test_every_line_is_a_row_and_no_attack_stands_there_twice() -> None:
    assert [line for line in LINES if not ROW.fullmatch(line)] == []
    attacks = [row["attack"] for row in ROWS]
    assert len(attacks) >= 35
    assert len(set(attacks)) == len(attacks)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["attack"][:40])
def test_a_row_names_a_test_that_exists_and_sees_its_words(row: re.Match[str]) -> None:
    assert row["file"] == f"tests/{row['shown']}"
    assert row["test"].startswith("test_")
    assert row["test"] in names_in(row["file"])
    assert any(row["words"] in str(text) for text in told_by(row["file"], row["test"]))

"""The table of rights that only some tests use names tests that there are: a right would be exempt for ever otherwise."""

import ast
from pathlib import Path

from tests.e2e.test_zz_rights import LEFT_OUT

E2E = Path(__file__).parents[1] / "e2e"


def test_every_right_that_a_chain_leaves_out_is_used_by_a_test_that_exists_and_runs_before() -> None:
    found: dict[str, str] = {}
    for file in E2E.glob("test_*.py"):
        found |= {
            node.name: file.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)
        }
    named = {test for _, test in LEFT_OUT.values()}
    assert named <= set(found)
    assert all(found[test] < "test_zz_rights.py" for test in named)
    assert max(file.name for file in E2E.glob("test_*.py")) == "test_zz_rights.py"

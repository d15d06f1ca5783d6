"""The journal of answers: what a killed process leaves is found again, whole or not at all."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_trainer.label.answers import Answer, question
from slm_trainer.label.journal import Journal
from slmops.contract import Sampling

ONE, TWO = Answer("eins\nzwei ä", 3, 4), Answer("", 0, 1, "length", True)
ASKED = ({"role": "user", "content": "a"},)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "answers.jsonl"


def test_what_was_added_is_found_by_the_next_process(path: Path) -> None:
    with Journal(path) as journal:
        journal.add("a", ONE)
        journal.add("b", TWO)
        assert (journal.get("a"), journal.get("b"), journal.get("c")) == (ONE, TWO, None)
    with Journal(path) as journal:
        assert (journal.get("a"), journal.get("b"), "c" in journal) == (ONE, TWO, False)


def test_an_answer_is_in_the_file_before_the_next_is_asked_for(path: Path) -> None:
    """Nobody closes the journal of a process that is killed."""
    with Journal(path) as journal:
        journal.add("a", ONE)
        assert json.loads(path.read_bytes())["text"] == ONE.text


@given(st.integers(min_value=0, max_value=400))
def test_however_much_of_the_last_line_is_missing_the_others_stand(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "answers.jsonl"
    with Journal(path) as journal:
        journal.add("a", ONE)
        first = path.stat().st_size
        journal.add("b", ONE)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(first, len(whole) - cut)])
    with Journal(path) as journal:
        assert journal.get("a") == ONE
        assert journal.get("b") == (ONE if cut == 0 else None)
        journal.add("c", TWO)
    with Journal(path) as journal:
        assert (journal.get("a"), journal.get("c")) == (ONE, TWO)


@pytest.mark.parametrize("line", [b"{}", b"[]", b"no", b'{"key": 5}', b'{"key": "a", "text": 5}', b"\xff", b"[" * 9999,
                                  b'{"key": "a", "spent": [1]}', b'{"key": "a", "spent": [1, Infinity]}',
                                  b'{"key": "a", "spent": null}', b'{"key": 5, "spent": [1, 2]}'])  # fmt: skip
def test_a_line_that_is_no_answer_is_asked_again_and_harms_no_other(path: Path, line: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(line + b"\n")
    with Journal(path) as journal:
        assert "a" not in journal
        journal.add("a", ONE)
    with Journal(path) as journal:
        assert journal.get("a") == ONE


def test_what_was_spent_on_nothing_adds_up_and_is_no_answer(path: Path) -> None:
    with Journal(path) as journal:
        journal.spend("a", 3, 40)
        journal.spend("b", 0, 0)
        assert not journal.spent("b")[0]
        journal.add("a", ONE)
        journal.spend("a", 3, 2)
    assert len(path.read_bytes().splitlines()) == 3, "nothing is written of nothing"
    with Journal(path) as journal:
        assert (journal.spent("a"), journal.spent("b")) == ((6, 42), (0, 0))
        assert (journal.get("a"), "b" in journal) == (ONE, False)


@pytest.mark.parametrize("between", [b"", b"half a line"])
def test_an_answer_that_another_process_wrote_in_between_is_never_taken_for_the_asked_one(
    path: Path, between: bytes
) -> None:
    with Journal(path) as journal, Journal(path, path.with_name("other")) as other:
        journal.add("a", ONE)
        if between:
            with path.open("ab") as file:
                file.write(between)
        else:
            other.add("b", TWO)
        journal.add("c", TWO)
        assert journal.get("a") == ONE
        assert journal.get("c") is None


def test_nothing_is_synced_twice(path: Path) -> None:
    with Journal(path) as journal:
        assert not journal.dirty
        journal.add("a", ONE)
        assert journal.dirty
        journal.sync()
        assert not journal.dirty
    with Journal(path) as journal:
        assert not journal.dirty


def test_a_question_is_known_by_all_that_shapes_its_answer() -> None:
    base = question("t", ASKED, Sampling(), 1)
    assert question("t", ASKED, Sampling(), 1) == base
    others = [
        question("u", ASKED, Sampling(), 1), question("t", ASKED, Sampling(), 2),
        question("t", ASKED, Sampling(temperature=0.1), 1), question("t", ASKED, Sampling(stop=("x",)), 1),
        question("t", (*ASKED, *ASKED), Sampling(), 1), question("t", ({"role": "system", "content": "a"},), Sampling(), 1),
    ]  # fmt: skip
    assert len({base.key, *(other.key for other in others)}) == len(others) + 1


def test_how_many_samples_are_wanted_does_not_change_the_first() -> None:
    """Who wants more of them later pays for the rest alone."""
    assert question("t", ASKED, Sampling(samples=3), 1).key == question("t", ASKED, Sampling(), 1).key

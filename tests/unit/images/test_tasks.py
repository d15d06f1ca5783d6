"""What an answer is in each task."""

from collections.abc import Iterator

import pytest

from slm_trainer.tasks import LABELS, check
from slmkit.data import Example
from slmkit.run import RunFailed
from slmops.contract import Reason


def told(*answers: str | None, question: str = "What is this long text about?") -> list[Example]:
    return [Example(({"role": "user", "content": question},), answer) for answer in answers]


@pytest.mark.parametrize(
    ("task", "training", "held_out"),
    [
        ("Generation", ["any", "thing"], ["else", None]),
        ("Classification", ["yes", "no", "yes", "no"], ["no", None]),
        ("Extraction", ['{"a": 1}', "[1, 2]"], ['{"b": [2]}', None]),
        ("Summarization", ["short", "shorter"], ["short", None]),
    ],
)
def test_answers_of_the_task_pass(task: str, training: list[str], held_out: list[str | None]) -> None:
    check(task, told(*training), told(*held_out))


@pytest.mark.parametrize(
    ("task", "training", "held_out", "words"),
    [
        ("Classification", ["yes"] * 4, ["yes"], "all records that are trained on have the same label"),
        ("Classification", ["a", "b", "c", "a"], ["a"], "3 different answers in 4 records are no labels"),
        ("Classification", [str(n) for n in range(LABELS + 1)] * 2, [], f"more than {LABELS} different answers"),
        ("Classification", ["a", "b", "a", "b"], ["a", "c"], "held-out record 2 has the label 'c'"),
        ("Extraction", ['{"a": 1}', "{a: 1}"], [], "record 2: the answer is no JSON: '{a: 1}'"),
        ("Extraction", ["{}"], ["{}", '"word"'], "held-out record 2: the answer is JSON, and no object or list"),
        ("Extraction", ["[" * 100_000], [], "record 1: the answer is no JSON"),
        ("Summarization", ["short", "x" * 40], [], "record 2: the summary is no shorter than what it sums up"),
    ],
)
def test_an_answer_that_is_none_is_named(task: str, training: list[str], held_out: list[str], words: str) -> None:
    with pytest.raises(RunFailed) as failed:
        check(task, told(*training), told(*held_out))
    assert failed.value.reason is Reason.INVALID_DATA
    assert failed.value.message.startswith(f"task {task}: ")
    assert words in failed.value.message
    assert len(failed.value.message) < 300


class Counted(list[Example]):
    """Records that count how many of them were read."""

    read = 0

    def __iter__(self) -> Iterator[Example]:
        for example in super().__iter__():
            self.read += 1
            yield example


def test_texts_that_are_taken_for_labels_are_not_all_held_in_memory() -> None:
    texts = Counted(told(*(f"text {n}" for n in range(5 * LABELS))))
    with pytest.raises(RunFailed, match=f"in {5 * LABELS} records are no labels"):
        check("Classification", texts)
    assert texts.read == LABELS + 1


@pytest.mark.parametrize(("task", "good", "bad"), [("Classification", "a", "c"), ("Extraction", "{}", "word")])
def test_every_set_that_is_held_out_is_looked_at(task: str, good: str, bad: str) -> None:
    training = ["a", "b", "a", "b"] if task == "Classification" else ["{}"] * 4
    check(task, told(*training), told(good), told(good))
    with pytest.raises(RunFailed, match="held-out record 2"):
        check(task, told(*training), told(good), told(good, bad))

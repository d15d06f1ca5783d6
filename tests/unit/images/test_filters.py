"""Filters: what each drops and what it leaves, at its edges."""

from pathlib import Path

import pytest

from slm_trainer.dataset.agreement import agreed
from slm_trainer.dataset.choose import answer_filters, prompt_filters
from slm_trainer.dataset.filters import Balance, Duplicates, Filter, Labels, Leaks, Length
from slm_trainer.dataset.near import NearDuplicates, shingles
from slm_trainer.dataset.seen import Seen, key
from slm_trainer.dataset.tally import Tally, counted
from slmkit.data import Example
from slmops.contract import Balance as BalanceWanted
from slmops.contract import Filters

TEXT = "please switch on the lamp in the north greenhouse at half past six and leave it on until the sun has come up"


def ask(text: str, answer: str | None = "yes", category: str | None = None, system: str = "") -> Example:
    before = ({"role": "system", "content": system},) if system else ()
    return Example((*before, {"role": "user", "content": text}), answer, category)


def left(filter: Filter, *examples: Example) -> list[Example]:
    return [example for example in examples if filter(example) is None]


def test_a_prompt_is_a_duplicate_letter_by_letter(tmp_path: Path) -> None:
    filter = Duplicates(tmp_path / "seen")
    found = [filter(e) for e in (ask("a"), ask("a", "other"), ask("A"), ask("a ", "x"), ask("a", system="s"), ask("a"))]
    assert found == [None, "Duplicate", None, None, None, "Duplicate"]


def test_plain_texts_are_duplicates_by_their_whole(tmp_path: Path) -> None:
    filter = Duplicates(tmp_path / "seen")
    assert [filter(Example((), text)) for text in ("a", "b", "a")] == [None, None, "Duplicate"]


def test_what_is_held_out_is_a_leak(tmp_path: Path) -> None:
    held_out = Seen(tmp_path / "seen")
    held_out.add(key(ask("secret", "answer")))
    filter = Leaks(held_out)
    assert filter(ask("secret", "another answer")) == "Leaked"
    assert filter(ask("open")) is None


def test_almost_the_same_is_a_near_duplicate_of_what_was_kept(tmp_path: Path) -> None:
    filter = NearDuplicates(0.7, tmp_path / "near")
    assert filter(ask(TEXT)) is None
    assert filter(ask(TEXT.upper() + "!")) == "NearDuplicate", "capitals and punctuation are no difference"
    assert filter(ask(TEXT.replace("half past six", "half past seven"))) == "NearDuplicate"
    assert filter(ask("open the valve of the second field until all of the water in the tank is gone")) is None
    assert filter(ask("!?")) is None, "nothing to compare"
    assert filter(ask("!?")) is None


@pytest.mark.parametrize(("similarity", "dropped"), [(0.6, True), (0.99, False)])
def test_how_similar_is_too_similar_is_the_users_to_say(tmp_path: Path, similarity: float, dropped: bool) -> None:
    changed = ask(TEXT.replace("lamp", "pump"))
    one, other = shingles(ask(TEXT)), shingles(changed)
    assert 0.7 < len(one & other) / len(one | other) < 0.8
    filter = NearDuplicates(similarity, tmp_path / "near")
    assert filter(ask(TEXT)) is None
    assert (filter(changed) == "NearDuplicate") is dropped


def test_system_messages_make_nothing_alike(tmp_path: Path) -> None:
    filter = NearDuplicates(0.5, tmp_path / "near")
    assert filter(ask("open the door of the stable", system=TEXT)) is None
    assert filter(ask("close all of the windows now", system=TEXT)) is None


def test_length_counts_prompt_and_answer_in_words() -> None:
    filter = Length(3, 5)
    found = [filter(ask(" ".join("x" * count), "yes")) for count in (1, 2, 4, 5)]
    assert found == ["TooShort", None, None, "TooLong"]
    assert Length(None, None)(ask("x " * 1000)) is None


def test_an_answer_has_to_be_one_of_the_labels() -> None:
    good = [ask("a", "good"), ask("b", " bad\n")]
    assert left(Labels(("good", "bad")), *good, ask("c", "Good"), ask("d", "good, I think")) == good


def test_the_first_of_each_kind_are_kept() -> None:
    examples = [ask(str(n), "ab"[n % 3 == 0], category="xy"[n > 5]) for n in range(10)]
    assert left(Balance("Answer", 2), *examples) == [examples[n] for n in (0, 1, 2, 3)]
    assert left(Balance("Category", 1), *examples) == [examples[0], examples[6]]


AGREEMENT: list[tuple[list[str], int, int | None]] = [
    (["a"], 1, 0),
    (["a"], 2, None),
    (["a", "b", "a"], 2, 0),
    (["b", "a", "a"], 2, 1),
    (["b", "a", "a "], 2, 1),
    (["a\n b", "a b"], 2, 0),
    (["a", "A"], 2, None),
    (["a", "b", "c"], 2, None),
    (["b", "b", "a", "a"], 2, 0),
    (["", "", "a"], 2, None),
    ([], 1, None),
]


@pytest.mark.parametrize(("answers", "at_least", "index"), AGREEMENT)
def test_what_most_samples_say_is_taken(answers: list[str], at_least: int, index: int | None) -> None:
    assert agreed(answers, at_least) == index


def test_each_dropped_record_is_counted_once_by_the_first_reason(tmp_path: Path) -> None:
    held_out = Seen(tmp_path / "seen")
    held_out.add(key(ask("held")))
    wanted = Filters(labels=("yes", "no"), max_tokens=4, balance=BalanceWanted(maximum=2))
    examples = [
        ask("held", "?"),
        ask("a"),
        ask("a", "?"),
        ask("b", "?"),
        ask("c " * 9),
        ask("d"),
        ask("e"),
        ask("f", "no"),
    ]
    tally = Tally()
    with prompt_filters(wanted, held_out, tmp_path) as filters:
        kept = list(counted(examples, [*filters, *answer_filters(wanted)], tally))
    assert kept == [ask("a"), ask("d"), ask("f", "no")]
    assert tally.dropped == {"Leaked": 1, "Duplicate": 1, "InvalidLabel": 1, "TooLong": 1, "Unbalanced": 1}
    assert (tally.read, tally.kept) == (8, 3)
    assert tally.answers == {"yes": 2, "no": 1}
    assert tally.drops["InvalidLabel"] == [("b", "?")]


def test_without_wishes_only_leaks_are_dropped(tmp_path: Path) -> None:
    tally = Tally()
    with prompt_filters(None, Seen(tmp_path / "seen"), tmp_path) as filters:
        kept = list(counted([ask("a"), ask("a"), ask("")], [*filters, *answer_filters(None)], tally))
    assert len(kept) == 3
    assert not tally.dropped


def test_held_out_records_stay_as_unbalanced_as_they_are() -> None:
    wanted = Filters(balance=BalanceWanted(maximum=1), min_tokens=2)
    examples = [ask("a"), ask("b"), ask("", "")]
    assert len(list(counted(examples, answer_filters(wanted, held_out=True), Tally()))) == 2


def test_a_tally_is_bounded_whatever_it_counts() -> None:
    tally = Tally()
    for number in range(1500):
        tally.keep(ask(str(number), f"answer {number}", category="x" * 200))
        tally.drop("Duplicate", ask("y" * 10_000, "z" * 10_000))
    assert tally.answers is None
    assert tally.categories is None
    assert tally.dropped["Duplicate"] == 1500
    assert len(str(tally.drops)) < 2500
    assert len(tally.lengths) == 1

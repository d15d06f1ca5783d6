"""Which prompts are worth asking, and which answers become records; every prompt is accounted for."""

from pathlib import Path

import pytest

from slm_trainer.dataset.tally import Tally
from slm_trainer.label.answers import Answer, Trouble
from slm_trainer.label.sieve import Sieve, golden, worth_asking
from slmkit.data import Example
from slmkit.run import RunFailed
from slmops.contract import Balance, Filters, Reason


def ask(text: str, answer: str | None = None) -> Example:
    return Example(({"role": "user", "content": text},), answer, "kind")


def answers(*texts: str) -> list[Answer]:
    return [Answer(text, 1, 1) for text in texts]


def made(
    wanted: Filters, given: list[Answer] | Trouble, prompt: Example | None = None
) -> tuple[list[str | None], Tally]:
    """The records of one prompt."""
    tally = Tally()
    records = Sieve(wanted, tally).records(prompt or ask("q"), given)
    return [record.completion for record in records], tally


def test_prompts_that_would_be_dropped_anyway_are_not_asked(tmp_path: Path) -> None:
    tally = Tally()
    training = [ask("a"), ask("held"), ask("b"), ask("a")]
    left = worth_asking(training, [ask("held", "x")], Filters(), tally, tmp_path)
    assert list(left) == [ask("a"), ask("b")]
    assert tally.dropped == {"Leaked": 1, "Duplicate": 1}


def test_doubles_are_asked_where_that_is_wanted(tmp_path: Path) -> None:
    assert len(worth_asking([ask("a")] * 3, [], Filters(deduplicate=False), Tally(), tmp_path)) == 3


def test_a_training_set_that_is_all_held_out_is_no_training_set(tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as failed:
        worth_asking([ask("a")], [ask("a", "x")], Filters(), Tally(), tmp_path)
    assert failed.value.reason is Reason.INVALID_DATA


def test_each_different_answer_is_a_record_and_keeps_what_the_prompt_says_of_itself() -> None:
    tally = Tally()
    sieve = Sieve(Filters(), tally)
    assert sieve.records(ask("q", "its own"), answers("x", "y", "x")) == [ask("q", "x"), ask("q", "y")]
    assert (tally.kept, sieve.tokens) == (2, 2)


@pytest.mark.parametrize(
    ("given", "kept"), [(("x", "y", "x"), ["x"]), (("y", "x ", " x"), ["x "]), (("x", "y", "z"), []), (("x",), [])]
)
def test_samples_have_to_agree_where_that_is_wanted(given: tuple[str, ...], kept: list[str]) -> None:
    found, tally = made(Filters(agreement=2), answers(*given))
    assert found == kept
    assert tally.dropped == ({} if kept else {"Disagreement": 1})
    assert kept or tally.drops["Disagreement"] == [("q", given[0])]


def test_a_prompt_without_an_answer_is_counted_by_what_the_teacher_did() -> None:
    found, tally = made(Filters(agreement=2), Trouble.TIMED_OUT)
    assert found == []
    assert tally.dropped == {"TimedOut": 1}


def test_good_answers_are_kept_beside_bad_ones_and_a_prompt_is_dropped_when_none_is_good() -> None:
    wanted = Filters(labels=("yes", "no"), max_tokens=4)
    assert made(wanted, answers("perhaps", "yes"))[0] == ["yes"]
    found, tally = made(wanted, answers("perhaps", "never", "perhaps"))
    assert found == []
    assert tally.dropped == {"InvalidLabel": 1}
    assert tally.drops["InvalidLabel"] == [("q", "perhaps")]
    assert made(wanted, answers("yes"), ask("one two three four"))[1].dropped == {"TooLong": 1}


def test_a_held_out_record_is_judged_by_its_own_answer_and_not_by_the_teachers() -> None:
    tally = Tally()
    sieve = Sieve(Filters(labels=("yes", "no"), balance=Balance(maximum=1)), tally)
    (wrong,) = answers("perhaps")
    assert sieve.measures(ask("a", "yes"), [wrong]) == [(ask("a", "yes"), wrong)], (
        "the teacher is wrong, and that counts"
    )
    assert sieve.measures(ask("b", "yes"), [wrong]) == [(ask("b", "yes"), wrong)], "no balance"
    assert sieve.measures(ask("c"), [wrong]) == []
    assert sieve.measures(ask("d"), Trouble.REFUSED) == []
    assert tally.dropped == {"InvalidLabel": 1, "Refused": 1}
    assert (golden(ask("a", "yes"), wrong).completion, golden(ask("a"), wrong).completion) == ("yes", "perhaps")


def test_balance_is_over_all_prompts() -> None:
    tally = Tally()
    sieve = Sieve(Filters(balance=Balance(maximum=2)), tally)
    kept = [record.completion for n in range(6) for record in sieve.records(ask(str(n)), answers("ab"[n == 3]))]
    assert kept == ["a", "a", "b"]
    assert tally.dropped == {"Unbalanced": 3}

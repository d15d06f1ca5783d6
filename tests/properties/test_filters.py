"""Filters never invent a record, keep the order, and every record that was read is kept or counted as dropped."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_trainer.dataset.agreement import agreed
from slm_trainer.dataset.choose import answer_filters, prompt_filters
from slm_trainer.dataset.seen import Seen, key
from slm_trainer.dataset.tally import Tally, counted
from slmkit.data import Example
from slmops.contract import Balance, Filters

words = st.lists(st.sampled_from(["lamp", "door", "open", "close", "now"]), min_size=1, max_size=6).map(" ".join)
examples = st.lists(
    st.builds(
        lambda text, answer, about: Example(({"role": "user", "content": text},), answer, about),
        words, st.sampled_from(["yes", "no", "perhaps"]), st.sampled_from([None, "a", "b"]),
    ),
    max_size=30,
)  # fmt: skip
filters = st.builds(
    Filters,
    deduplicate=st.booleans(),
    near_duplicates=st.none() | st.floats(0.5, 0.99),
    min_tokens=st.none() | st.integers(1, 4),
    max_tokens=st.none() | st.integers(2, 8),
    labels=st.sampled_from([(), ("yes", "no")]),
    balance=st.none() | st.builds(Balance, per=st.sampled_from(["Answer", "Category"]), maximum=st.integers(1, 5)),
)


@settings(max_examples=60)
@given(examples=examples, held_out=examples, wanted=filters)
def test_what_is_left_was_there_and_the_counts_add_up(
    tmp_path_factory: pytest.TempPathFactory, examples: list[Example], held_out: list[Example], wanted: Filters
) -> None:
    folder = tmp_path_factory.mktemp("filters")
    seen = Seen(folder / "seen")
    for example in held_out:
        seen.add(key(example))
    tally = Tally()
    with prompt_filters(wanted, seen, folder) as looking:
        kept = list(counted(examples, [*looking, *answer_filters(wanted)], tally))
    rest = iter(examples)
    assert all(example in rest for example in kept), "a record that was not there, or another order"
    assert tally.read == len(examples) == tally.kept + sum(tally.dropped.values())
    assert tally.kept == len(kept) == sum(tally.lengths.values())
    assert not {repr(e.prompt) for e in kept} & {repr(e.prompt) for e in held_out}
    if wanted.deduplicate:
        assert len({repr(e.prompt) for e in kept}) == len(kept)
    if wanted.balance and wanted.balance.per == "Answer" and tally.answers:
        assert max(tally.answers.values()) <= wanted.balance.maximum
    seen.close()


@given(st.lists(st.sampled_from(["a", "b", " a", ""]), max_size=8), st.integers(1, 5))
def test_samples_agree_where_enough_of_them_say_the_same(answers: list[str], at_least: int) -> None:
    index = agreed(answers, at_least)
    counts = {text: sum(a.strip() == text for a in answers) for text in ("a", "b")}
    if index is None:
        assert max(counts.values()) < at_least
    else:
        assert counts[answers[index].strip()] == max(counts.values()) >= at_least

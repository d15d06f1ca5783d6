"""Encoded records on disk are the records that were written, in any order and any number."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_trainer import store
from slm_trainer.encoding import CHAT_TEMPLATE, encode, ends, name_ends, turn_end, until
from slm_trainer.store import Record, TokenStore, Writer, digest, lengths
from slmkit.data import Example
from slmkit.run import RunFailed
from tests.unit.images.letters import Letters

records = st.lists(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20).flatmap(
        lambda tokens: st.builds(Record, st.just(tokens), st.integers(0, len(tokens)))
    ),
    max_size=20,
)


@settings(max_examples=50)
@given(records)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> None:
    folder = tmp_path_factory.mktemp("store")
    with Writer(folder) as writer:
        for record in records:
            writer.extend([record])
    stored = TokenStore(folder)
    assert list(stored) == records
    assert stored[1:5] == records[1:5]
    assert list(lengths(stored)) == list(lengths(records)) == [len(record.tokens) for record in records]
    assert digest(stored) == digest(records)
    assert stored.answers == sum(len(record.tokens) - record.start for record in records)
    if records:
        assert stored[-1] == records[-1]
    with pytest.raises(IndexError):
        stored[len(records)]


def test_a_digest_is_of_every_token_and_of_where_answers_begin(tmp_path: Path) -> None:
    some = [Record([1, 2, 3], 1), Record([4], 0)]
    others = [[Record([1, 2, 3], 2), some[1]], [Record([1, 2, 5], 1), some[1]], some[::-1], some[:1],
              [Record([1, 2], 1), Record([3, 4], 0)]]  # fmt: skip
    assert len({digest(records) for records in (some, *others)}) == 6
    with Writer(tmp_path) as writer:
        writer.extend(some)
    assert digest(TokenStore(tmp_path)) == digest(some)


def test_a_digest_of_a_store_takes_no_record_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million of them would cost seconds, of every process and at every start."""
    some = [Record([1, 2, 3], 1), Record([4], 0), Record([5, 6], 2)]
    with Writer(tmp_path) as writer:
        writer.extend(some)
    expected = digest(some)
    monkeypatch.delattr(TokenStore, "__getitem__")
    for bytes_at_a_time in (1 << 20, 16, 1):
        monkeypatch.setattr(store, "BLOCK", bytes_at_a_time)
        assert digest(TokenStore(tmp_path)) == expected


def user(text: str, answer: str) -> Example:
    return Example(({"role": "user", "content": text},), answer)


def test_memory_and_disk_hold_the_same_records(tmp_path: Path) -> None:
    examples = [user("a", "b"), user("long" * 20, "b"), Example((), "plain text" * 10), user("c", "d")]
    kept, dropped = encode(Letters(), examples, 40)
    stored, dropped_too = encode(Letters(), examples, 40, tmp_path / "tokens")
    assert list(stored) == list(kept)
    assert isinstance(stored, TokenStore)
    assert dropped == dropped_too == 1


def test_a_plain_text_is_cut_into_pieces_that_are_learned_from_their_first_token() -> None:
    text = "x" * 95
    found, dropped = encode(Letters(), [Example((), text)], 32)
    assert [len(record.tokens) for record in found] == [32, 32, 32]
    assert {record.start for record in found} == {0}
    assert [token for record in found for token in record.tokens] == [*text.encode(), Letters.eos_token_id]
    assert dropped == 0


def test_an_answer_begins_where_its_prompt_ends() -> None:
    (record,), _ = encode(Letters(), [user("hello", "yes")], 100)
    assert bytes(record.tokens[: record.start]) == b"<|user|>hello<|end|><|assistant|>"
    assert bytes(record.tokens[record.start :]) == b"yes<|end|>"


def test_a_template_that_writes_an_answer_in_another_way_is_refused() -> None:
    odd = Letters(CHAT_TEMPLATE.replace("<|assistant|>", "<|bot|>"))
    with pytest.raises(RunFailed, match="begins an answer in another way"):
        encode(odd, [user("a", "b")], 100)


@pytest.mark.parametrize(
    ("named", "expected"), [(None, [256]), (256, [256]), (7, [7, 256]), ([7, 9], [7, 9, 256]), ([256, 7], [256, 7])]
)
def test_what_ends_an_answer_is_what_model_or_tokenizer_name(
    named: int | list[int] | None, expected: list[int]
) -> None:
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=named))
    assert ends(model, Letters()) == expected


TURN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}END{% endfor %}"
KNOWN = {"<|turn|>": 300, "<|other|>": 301, "<unk>": 302}


@pytest.mark.parametrize(
    ("after", "found"),
    [("<|turn|>", 300), ("<|turn|>\n", 300), (" \n<|turn|>", 300), ("<|turn|><|other|>", 300), ("\n### User", None),
     ("", None), ("\n", None), (".<|turn|>", None), ("<|end|>", None), ("<unk>", None),
     ("<|turn|>{{ raise_exception('no') }}", None)],
)  # fmt: skip
def test_the_end_of_an_answer_is_the_token_that_the_template_writes_there(after: str, found: int | None) -> None:
    """Not what is text to whoever generates, nor a token that the tokenizer does not know."""
    assert turn_end(Letters(TURN.replace("END", after), KNOWN)) == found


def test_a_template_that_leaves_the_answer_out_has_no_end() -> None:
    assert turn_end(Letters("{{ messages[0].content }}<|turn|>", KNOWN)) is None


@pytest.mark.parametrize(
    ("named", "after", "expected"),
    [(7, "<|turn|>", [7, 256, 300]), ([300, 7], "<|turn|>", [300, 7, 256]), (None, "<|turn|>", [256, 300]),
     (256, "text", 256), (None, "text", 256), ([256], "text", 256)],
)  # fmt: skip
def test_the_models_settings_come_to_name_all_ends(named: Any, after: str, expected: Any) -> None:
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=named))
    tokenizer = Letters(TURN.replace("END", after), KNOWN)
    name_ends(model, tokenizer)
    assert model.generation_config.eos_token_id == expected
    name_ends(model, tokenizer)
    assert model.generation_config.eos_token_id == expected, "and no more of them the next time"


@pytest.mark.parametrize(("tokens", "found"), [([5, 300, 6, 256], 1), ([256], 0), ([5, 6], None), ([], None)])
def test_an_answer_is_what_comes_before_the_first_end(tokens: list[int], found: int | None) -> None:
    assert until(tokens, [256, 300]) == found

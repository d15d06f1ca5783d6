"""From conversations to batches: what is trained is the answer, after the very tokens that generation starts from."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

from slm_trainer.losses import IGNORED
from slm_trainer.model import train_tokenizer
from slm_trainer.tokens import SPECIAL, Record, batches, collate, encode, prompt_tokens
from slmkit.data import Example
from slmkit.run import RunFailed
from slmops.contract import Reason

PAD = 0


def example(prompt: str, answer: str, system: str = "") -> Example:
    before = ({"role": "system", "content": system},) if system else ()
    return Example((*before, {"role": "user", "content": prompt}), answer)


EXAMPLES = [example(f"set lamp {n} to {n * 3} percent", f'{{"lamp":{n},"percent":{n * 3}}}') for n in range(40)]
EXAMPLES.append(example("wer hört? \U0001f600 <|end|> \n\t", "é\u2013\U0001f69c", system="be short"))


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return train_tokenizer(EXAMPLES, 300)


def test_any_text_comes_back_as_it_was(tokenizer) -> None:  # type: ignore[no-untyped-def]
    for text in ("abc", "ü \U0001f600 \u0000 \r\n", "  two  spaces ", "12:30", "never seen: ŋ"):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(tokens) == text
        assert max(tokens) < len(tokenizer)


def test_digits_stay_apart(tokenizer) -> None:  # type: ignore[no-untyped-def]
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("1200 percent 33", add_special_tokens=False)["input_ids"])
    assert not [piece for piece in pieces if sum(letter.isdigit() for letter in piece) > 1]


def test_the_same_data_give_the_same_tokenizer(tokenizer) -> None:  # type: ignore[no-untyped-def]
    again = train_tokenizer(EXAMPLES, 300)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert (tokenizer.pad_token, tokenizer.eos_token) == SPECIAL[:2]
    assert len({tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}) == len(SPECIAL)


def test_the_answer_and_its_end_are_learned_and_nothing_else(tokenizer) -> None:  # type: ignore[no-untyped-def]
    records, dropped = encode(tokenizer, EXAMPLES, 1000)
    assert (len(records), dropped) == (len(EXAMPLES), 0)
    for record, one in zip(records, EXAMPLES, strict=True):
        _, _, labels = collate([record], PAD)
        learned = [int(token) for token in labels[0] if token != IGNORED]
        assert tokenizer.decode(learned) == f"{one.completion}<|end|>"
        assert learned[-1] == tokenizer.eos_token_id


def test_training_sees_the_tokens_that_generation_starts_from(tokenizer) -> None:  # type: ignore[no-untyped-def]
    records, _ = encode(tokenizer, EXAMPLES, 1000)
    for record, one in zip(records, EXAMPLES, strict=True):
        assert record.tokens[: record.start] == prompt_tokens(tokenizer, one)
        assert tokenizer.decode(record.tokens[: record.start]).endswith("<|assistant|>")


def test_what_is_longer_than_allowed_is_dropped_and_counted(tokenizer) -> None:  # type: ignore[no-untyped-def]
    (record,), _ = encode(tokenizer, EXAMPLES[:1], 1000)
    length = len(record.tokens)
    assert encode(tokenizer, EXAMPLES[:1], length) == ([record], 0)
    assert encode(tokenizer, EXAMPLES[:1], length - 1) == ([], 1)


def test_a_template_that_writes_answers_in_two_ways_is_refused(tokenizer) -> None:  # type: ignore[no-untyped-def]
    other = train_tokenizer(EXAMPLES, 300)
    other.chat_template = tokenizer.chat_template.replace("<|assistant|>{% endif %}", "<|assistant|><think>{% endif %}")
    with pytest.raises(RunFailed) as failed:
        encode(other, EXAMPLES, 1000)
    assert failed.value.reason is Reason.UNSUPPORTED_MODEL


def some(lengths: list[int]) -> list[Record]:
    """Records that can be told apart by their first token."""
    return [Record([100 + number, *range(1, length)], 1) for number, length in enumerate(lengths)]


LENGTHS = [5, 30, 6, 29, 5, 31, 7, 28, 6, 33, 2]


def firsts(records: list[Record], size: int, seed: int) -> list[int]:
    return [int(row[0]) for tokens, _, _ in batches(records, size, PAD, seed) for row in tokens]


@pytest.mark.parametrize("size", [1, 2, 4, 100])
def test_an_epoch_has_every_record_once(size: int) -> None:
    records = some(LENGTHS)
    assert sorted(firsts(records, size, 7)) == [100 + number for number in range(len(LENGTHS))]


def test_records_of_like_length_share_a_batch() -> None:
    padding = sum(int((mask == 0).sum()) for _, mask, _ in batches(some(LENGTHS), 2, PAD, 7))
    assert padding <= 8
    in_order = [some(LENGTHS)[i : i + 2] for i in range(0, len(LENGTHS), 2)]
    assert padding < sum(int((collate(pair, PAD)[1] == 0).sum()) for pair in in_order) / 10


def test_the_order_is_the_seeds() -> None:
    records = some(LENGTHS)
    assert firsts(records, 2, 7) == firsts(records, 2, 7)
    assert len({tuple(firsts(records, 2, seed)) for seed in range(5)}) == 5
    ascending = [len(tokens[0]) for tokens, _, _ in batches(records, 2, PAD, 7)]
    assert ascending != sorted(ascending), "batches do not come by length"


def test_a_batch_is_padded_on_the_right_and_knows_its_padding() -> None:
    tokens, mask, labels = collate([Record([5, 6, 7], 1), Record([8, 9], 1)], PAD)
    assert tokens.tolist() == [[5, 6, 7], [8, 9, PAD]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert labels.tolist() == [[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]


def test_an_answer_may_hold_the_padding_token() -> None:
    _, _, labels = collate([Record([5, PAD, 7], 1), Record([8, 9], 1)], PAD)
    assert labels.tolist()[0] == [IGNORED, PAD, 7], "what is padding is told by place, not by token"

"""The last look at a converted model: what answers differently from the original is not published."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import numpy as np

from slm_quantizer import likeness
from slm_quantizer import verify as module
from slm_quantizer.likeness import SIMILARITY, cosine
from slm_quantizer.runtimes import Said
from slm_quantizer.verify import GREEDY, agreement, look
from slmkit.run import RunFailed
from slmops.contract import Reason, Verification

WORDS, END = 40, 39
PROMPTS = ["ab", "a long prompt", "1, 2, 3"]


class Model:
    """A runtime: a letter is a token, and a row of logits belongs to each last token, changed by what a test wants."""

    ends = (END,)

    def __init__(self, change: Callable[[Any], Any] = lambda row: row, shift: int = 0, reads: str = "{}") -> None:
        self.rows = np.random.default_rng(1).standard_normal((WORDS, WORDS)).astype(np.float32) * 3
        self.change, self.shift, self.reads = change, shift, reads

    def fits(self, prompt: str, limit: int) -> bool:
        return len(prompt) + limit < 60

    def next_logits(self, tokens: Sequence[int]) -> Any:
        return self.change(self.rows[tokens[-1]].copy())

    def say(self, prompts: Sequence[str], limit: int) -> list[Said]:
        said = []
        for prompt in prompts:
            tokens = [(ord(letter) + self.shift) % (WORDS - 1) for letter in prompt]
            whole = list(tokens)
            for _ in range(limit):
                whole.append(int(np.argmax(self.next_logits(whole))))
            said.append(Said(tokens, self.reads.format(tokens), self.next_logits(tokens), whole[len(tokens) :]))
        return said


def check(converted: Model, precision: str = "INT4", prompts: Sequence[str] = PROMPTS) -> Verification:
    original: Any = Model()
    return look(original, lambda: converted, precision, prompts).verification


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(RunFailed) as failed:
        act()
    assert failed.value.reason is Reason.VERIFICATION_FAILED
    return failed.value.message


def noise(size: float) -> Callable[[Any], Any]:
    rng = np.random.default_rng(3)
    return lambda row: row + size * row.std() * rng.standard_normal(len(row)).astype(np.float32)


def test_a_model_that_answers_alike_passes() -> None:
    found = check(Model(), "FP32")
    assert (found.similarity, found.greedy_agreement, found.prompts) == (pytest.approx(1.0), 1.0, len(PROMPTS))
    scaled = check(Model(lambda row: 2 * row + 5), "FP32")
    assert scaled.similarity == pytest.approx(1.0), "only the order of words counts"


def test_prompts_that_are_longer_than_the_model_reads_are_left_out() -> None:
    found = check(Model(), "FP32", [*PROMPTS, "long " * 20])
    assert found.prompts == len(PROMPTS)


@pytest.mark.parametrize("precision", SIMILARITY)
def test_each_precision_has_its_own_noise(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    allowed = (1 / SIMILARITY[precision] ** 2 - 1) ** 0.5
    monkeypatch.setattr(module, "GREEDY", {})
    assert check(Model(noise(0.5 * allowed)), precision).similarity >= SIMILARITY[precision]
    assert "similar" in refused(lambda: check(Model(noise(3 * allowed)), precision))


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row[::-1].copy(), lambda row: -row, lambda row: 0 * row, lambda row: row * np.float32("nan"),
        lambda row: np.where(np.arange(len(row)) == 3, np.float32("inf"), row),
        lambda row: np.roll(row, 1), lambda row: np.random.default_rng(1).standard_normal(len(row)).astype(np.float32),
    ],
    ids=["other order", "the opposite", "nothing", "NaN", "an infinity", "other rows", "noise"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_model_that_reads_wrong_weights_does_not_pass(change: Callable[[Any], Any]) -> None:
    refused(lambda: check(Model(change)))


def test_a_model_of_another_vocabulary_does_not_pass() -> None:
    message = refused(lambda: check(Model(lambda row: row[:-1])))
    assert f"{WORDS - 1} logits instead of {WORDS}" in message


def test_a_tokenizer_that_cuts_in_another_way_does_not_pass() -> None:
    assert "'ab' in another way" in refused(lambda: check(Model(shift=1)))


def test_a_tokenizer_that_does_not_read_its_own_tokens_does_not_pass() -> None:
    assert "not read back" in refused(lambda: check(Model(reads="?")))


def test_a_model_that_the_runtime_cannot_load_does_not_pass() -> None:
    def fail() -> Model:
        raise RuntimeError("unsupported operator")

    original: Any = Model()
    with pytest.raises(RunFailed, match="cannot load"):
        look(original, fail, "INT4", PROMPTS)


def other_word(row: Any) -> Any:
    """Nearly the same logits, and another word on top: the best one and the next change places."""
    first, second = np.argsort(row)[-2:][::-1]
    row[first], row[second] = row[second], row[first]
    return row


def test_what_is_not_rounded_says_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likeness, "SIMILARITY", dict.fromkeys(SIMILARITY, 0.5))
    assert "greedy tokens" in refused(lambda: check(Model(other_word), "FP32"))
    assert check(Model(other_word), "INT4").greedy_agreement == 0
    assert set(GREEDY) == {"FP32"}


def said(*greedy: int) -> Said:
    return Said([1], "", np.zeros(4, np.float32), list(greedy))


def share(wanted: Said, found: Said, scores: Sequence[float] = (0, 1, 2, 3)) -> float:
    return agreement(wanted, found, [9], lambda tokens: np.array(scores, dtype=np.float32))


def test_agreement_counts_up_to_the_first_other_word() -> None:
    assert share(said(1, 2, 3, 1), said(1, 2, 3, 1)) == 1
    assert share(said(1, 2, 3, 1), said(1, 2, 0, 1)) == 0.5
    assert share(said(1, 2, 3, 1), said(1, 2)) == 0.5
    assert share(said(1, 2), said(1, 2, 3, 1)) == 0.5


def test_a_runtime_may_leave_out_the_end_of_an_answer() -> None:
    assert share(said(1, 2, 9), said(1, 2)) == 1
    assert share(said(9), said()) == 1
    assert share(said(1, 2, 9), said(1, 2, 9, 3)) == 1


def test_of_words_that_are_a_tie_either_is_right() -> None:
    assert share(said(1, 2, 3), said(1, 3, 2), [0, 9, 2, 2.0001]) == 1
    assert share(said(1, 2, 3), said(1, 3, 2), [0, 9, 2, 2.5]) == pytest.approx(1 / 3)


def test_similarity_is_between_vectors_without_their_mean() -> None:
    a = np.array([1.0, 2.0, 4.0], dtype=np.float32)
    assert cosine(a, a) == pytest.approx(1)
    assert cosine(a, 5 * a + 100) == pytest.approx(1)
    assert cosine(a, -a) == pytest.approx(-1)
    assert cosine(np.array([1.0, -1, 0], dtype=np.float32), np.array([1.0, 1, -2], dtype=np.float32)) == pytest.approx(
        0
    )

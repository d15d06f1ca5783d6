"""The last look at a converted model: what answers differently from the original is not published."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime_genai")

import numpy as np
import torch

from slm_quantizer import verify as module
from slm_quantizer.likeness import SIMILARITY, cosine
from slm_quantizer.verify import verify
from slmkit.run import RunFailed
from slmops.contract import Reason

WORDS = 40
PROMPTS = ["ab", "a long prompt", "1, 2, 3"]
torch.set_num_threads(1)


class Original:
    """A model in PyTorch: a row of logits for each last token."""

    def __init__(self, seed: int = 1, words: int = WORDS) -> None:
        self.rows = torch.randn(WORDS, words, generator=torch.Generator().manual_seed(seed)) * 3

    def __call__(self, tokens: Any) -> Any:
        return SimpleNamespace(logits=self.rows[tokens])

    def eval(self) -> "Original":
        return self


class Words:
    """A tokenizer: a letter is a token."""

    def __init__(self, shift: int = 0) -> None:
        self.shift = shift

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": self.encode(text)}

    def encode(self, text: str) -> list[int]:
        return [(ord(letter) + self.shift) % WORDS for letter in text]

    def decode(self, tokens: Any, skip_special_tokens: bool = True) -> str:
        return " ".join(str(int(token)) for token in tokens)


class Converted:
    """The runtime: the same rows, changed by what a test wants."""

    def __init__(self, change: Callable[[Any], Any], tokenizer: Any) -> None:
        self._rows, self._change = Original().rows.numpy(), change
        self.Tokenizer = lambda model: tokenizer
        self.GeneratorParams = lambda model: SimpleNamespace(set_search_options=lambda **options: None)

    def Model(self, folder: str) -> "Converted":  # noqa: N802  (as the library has it)
        return self

    def Generator(self, model: object, params: object) -> Any:  # noqa: N802
        state: dict[str, Any] = {}
        return SimpleNamespace(
            append_tokens=lambda tokens: state.update(last=int(tokens[-1])),
            get_logits=lambda: self._change(self._rows[state["last"]].copy())[None, None, :],
        )


def check(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], precision: str = "INT4", tokenizer: Any = None
) -> float:
    monkeypatch.setattr(module, "AutoTokenizer", SimpleNamespace(from_pretrained=lambda *a, **k: Words()))
    monkeypatch.setattr(module, "AutoModelForCausalLM", SimpleNamespace(from_pretrained=lambda *a, **k: Original()))
    monkeypatch.setattr(module, "og", Converted(change, tokenizer or Words()))
    return verify(Path("/original"), Path("/converted"), precision, PROMPTS)


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(RunFailed) as failed:
        act()
    assert failed.value.reason is Reason.VERIFICATION_FAILED
    return failed.value.message


def noise(size: float) -> Callable[[Any], Any]:
    rng = np.random.default_rng(3)
    return lambda row: row + size * row.std() * rng.standard_normal(len(row)).astype(np.float32)


def test_a_model_that_answers_alike_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(monkeypatch, lambda row: row, "FP32") == pytest.approx(1.0)
    assert check(monkeypatch, lambda row: 2 * row + 5, "FP32") == pytest.approx(1.0), "only the order of words counts"


@pytest.mark.parametrize("precision", ["FP32", "INT8", "INT4"])
def test_each_precision_has_its_own_noise(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    allowed = (1 / SIMILARITY[precision] ** 2 - 1) ** 0.5
    assert check(monkeypatch, noise(0.5 * allowed), precision) >= SIMILARITY[precision]
    assert "similar" in refused(lambda: check(monkeypatch, noise(3 * allowed), precision))


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
def test_a_model_that_reads_wrong_weights_does_not_pass(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]
) -> None:
    refused(lambda: check(monkeypatch, change))


def test_a_model_of_another_vocabulary_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(lambda: check(monkeypatch, lambda row: row[:-1]))
    assert f"{WORDS - 1} logits instead of {WORDS}" in message


def test_a_tokenizer_that_cuts_in_another_way_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(lambda: check(monkeypatch, lambda row: row, tokenizer=Words(shift=1)))
    assert "'ab' in another way" in message


def test_a_tokenizer_that_does_not_read_its_own_tokens_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Words()
    broken.decode = lambda tokens, skip_special_tokens=True: "?"  # type: ignore[method-assign]
    assert "not read back" in refused(lambda: check(monkeypatch, lambda row: row, tokenizer=broken))


def test_a_model_that_the_runtime_cannot_load_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: object) -> object:
        raise RuntimeError("unsupported operator")

    monkeypatch.setattr(Converted, "Model", fail)
    with pytest.raises(RunFailed, match="cannot load"):
        check(monkeypatch, lambda row: row)


def test_similarity_is_between_vectors_without_their_mean() -> None:
    a = np.array([1.0, 2.0, 4.0], dtype=np.float32)
    assert cosine(a, a) == pytest.approx(1)
    assert cosine(a, 5 * a + 100) == pytest.approx(1)
    assert cosine(a, -a) == pytest.approx(-1)
    assert cosine(np.array([1.0, -1, 0], dtype=np.float32), np.array([1.0, 1, -2], dtype=np.float32)) == pytest.approx(
        0
    )

"""How alike two models answer, number by number."""

import numpy as np
import pytest
from numpy.typing import NDArray

from slm_quantizer.likeness import SIMILARITY, cosine, enough, likeness
from slmkit.run import RunFailed
from slmops.contract import Reason

WANTED = np.array([1.0, -2.0, 4.0, 0.5], dtype=np.float32)


def refused(found: NDArray[np.float32]) -> str:
    with pytest.raises(RunFailed) as failed:
        likeness(WANTED, found, "a long prompt")
    assert failed.value.reason is Reason.VERIFICATION_FAILED
    return failed.value.message


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_a_failure_that_counts_them(broken: float) -> None:
    found = np.where([True, False, True, False], broken, WANTED).astype(np.float32)
    assert refused(found) == "2 of the converted model's 4 logits after 'a long prompt' are no numbers"


def test_logits_of_another_vocabulary_are_a_failure() -> None:
    assert refused(WANTED[:-1]) == "the converted model has 3 logits instead of 4"


@pytest.mark.parametrize("found", [0 * WANTED, WANTED * 0 + 7, -WANTED, WANTED[::-1].copy()])
def test_a_model_that_says_nothing_or_something_else_is_not_like_it(found: NDArray[np.float32]) -> None:
    for precision in SIMILARITY:
        with pytest.raises(RunFailed, match="is the least for") as failed:
            enough([likeness(WANTED, found, "x")], precision)
        assert failed.value.reason is Reason.VERIFICATION_FAILED


def test_only_the_order_of_words_counts() -> None:
    assert enough([likeness(WANTED, 2 * WANTED + 5, "x")], "FP32") == pytest.approx(1)
    assert cosine(WANTED, -WANTED) == pytest.approx(-1)


@pytest.mark.parametrize("precision", SIMILARITY)
def test_the_mean_over_the_prompts_has_to_reach_the_bound(precision: str) -> None:
    bound = SIMILARITY[precision]
    assert enough([bound, bound], precision) == pytest.approx(bound)
    with pytest.raises(RunFailed, match=f"{bound} is the least for {precision}"):
        enough([bound, bound - 0.01], precision)
    with pytest.raises(RunFailed, match="nan"):
        enough([1.0, float("nan")], precision)

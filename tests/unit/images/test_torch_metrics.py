"""Measures of words, by the libraries that the images have."""

import pytest

pytest.importorskip("torchmetrics")
pytest.importorskip("sacrebleu")

import numpy as np
import sacrebleu
import torch

from slmkit.metrics import scored
from slmkit.metrics.words import bleu, f1, rouge
from slmops.contract import Metric

SAID = ["the gate is open", "water the field at noon", "", "feed cows", "the light is off"]
WANTED = ["the gate is closed", "water the north field at noon", "nothing", "feed the cows", "the light is off"]
ONES = np.ones(len(SAID))


def test_bleu_is_that_of_the_corpus() -> None:
    assert bleu(SAID, WANTED)(ONES) == pytest.approx(sacrebleu.corpus_bleu(SAID, [WANTED]).score / 100)


def test_bleu_of_a_resample_is_that_of_the_corpus_drawn() -> None:
    drawn = [0, 0, 4, 4, 1]
    weights = np.bincount(drawn, minlength=len(SAID)).astype(float)
    expected = sacrebleu.corpus_bleu([SAID[i] for i in drawn], [[WANTED[i] for i in drawn]]).score / 100
    assert bleu(SAID, WANTED)(weights) == pytest.approx(expected)


def test_rouge_by_hand() -> None:
    """Longest common subsequences of 3 of 4 and 4 words, 5 of 5 and 6, none, 2 of 2 and 3, all."""
    expected = [0.75, 2 * 5 / 11, 0, 2 * 2 / 5, 1]
    assert rouge(SAID, WANTED)(ONES) == pytest.approx(np.mean(expected), abs=1e-6)


def test_overlap_of_words_without_articles_by_hand() -> None:
    expected = [2 / 3, 2 * 4 / 9, 0, 1, 1]
    assert f1(SAID, WANTED, "Generation")(ONES) == pytest.approx(np.mean(expected), abs=1e-6)


def test_all_of_them_with_intervals_that_hold_them() -> None:
    metrics = (Metric.ACCURACY, Metric.F1, Metric.BLEU, Metric.ROUGE)
    found = scored(SAID * 20, WANTED * 20, metrics, "Summarization").figures
    assert found.intervals.keys() == {"ExactMatch", *metrics}
    for name, value in (("F1", found.f1), ("BLEU", found.bleu), ("ROUGE", found.rouge)):
        low, high = found.intervals[name]
        assert value is not None
        assert 0 < low < value < high < 1
    assert torch.is_grad_enabled(), "nothing was left switched off"

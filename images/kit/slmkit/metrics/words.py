"""Measures of answers against the expected ones: per record what is to be added up, and the figure of any weighting of
records. Weights of one give the figure itself, those of a resample what it would have been."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from slmkit.metrics.intervals import Weights
from slmops.contract import Metric

Statistic = Callable[[Weights], float]
Texts = Sequence[str]
Place = tuple[str | int, ...]
WORST = 9e15
"""Perplexity beyond which a report tells no more: the contract's largest number is 2^53 - 1."""


def same(answer: str, expected: str) -> bool:
    """Equal but for blanks around them."""
    return answer.strip() == expected.strip()


def alike(answer: str, expected: str) -> bool:
    """Equal without regard to case, runs of blanks and a final full stop."""
    return _plain(answer) == _plain(expected)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().removesuffix(".").rstrip()


def f1(answers: Texts, expected: Texts, task: str) -> Statistic:
    """F1 as the task counts it."""
    if task == "Classification":
        return _of_labels(answers, expected)
    if task == "Extraction":
        return _of_fields(answers, expected)
    return _of_words(answers, expected)


def _of_labels(answers: Texts, expected: Texts) -> Statistic:
    """Mean of the F1 of each label that is expected (macro-F1). An answer that is no label is wrong for all of them.

    scikit-learn's f1_score gives the same. It looks through all records several times to find out what they are, which a
    thousand resamples need not do again.
    """
    labels = sorted(set(map(_plain, expected)))
    number = {label: index for index, label in enumerate(labels)}
    other = len(labels)
    wanted = np.array([number[_plain(text)] for text in expected])
    given = np.array([number.get(_plain(text), other) for text in answers])
    right = np.where(wanted == given, wanted, other)

    def statistic(weights: Weights) -> float:
        hits, expected_of, given_of = (np.bincount(of, weights, other + 1)[:other] for of in (right, wanted, given))
        drawn = expected_of > 0  # a resample without a label says nothing of it
        return _share((2 * hits[drawn] / (expected_of + given_of)[drawn]).sum(), drawn.sum())

    return statistic


def _of_fields(answers: Texts, expected: Texts) -> Statistic:
    """Over the fields of all answers: twice those that are right, by place and value, over those that are given and those
    that are expected."""
    given, wanted = ([Counter(_fields(text)) for text in texts] for texts in (answers, expected))
    right = np.array([(ours & theirs).total() for ours, theirs in zip(given, wanted, strict=True)])
    fields = np.array([ours.total() + theirs.total() for ours, theirs in zip(given, wanted, strict=True)])
    return lambda weights: 2 * _share(weights @ right, weights @ fields)


def _fields(text: str) -> Iterator[tuple[Place, str]]:
    """(place, value) of each leaf; none where the text is no JSON."""
    try:
        found = json.loads(text)
        yield from _leaves(found, ())
    except (ValueError, RecursionError):
        return


def _leaves(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _leaves(each, (*place, key))
    elif isinstance(value, list) and value:
        for index, each in enumerate(value):
            yield from _leaves(each, (*place, index))
    elif isinstance(value, float) and value.is_integer():  # 2.0 is 2
        yield place, json.dumps(int(value))
    else:
        yield place, json.dumps(value.strip() if isinstance(value, str) else value)


def _of_words(answers: Texts, expected: Texts) -> Statistic:
    """Overlap of words, mean over the records (Rajpurkar et al. 2016, SQuAD, arXiv 1606.05250)."""
    from torchmetrics.functional.text import squad

    def one(answer: str, wanted: str) -> float:
        target = {"answers": {"answer_start": [0], "text": [wanted]}, "id": "0"}
        return float(squad([{"prediction_text": answer, "id": "0"}], [target])["f1"]) / 100

    return _mean([one(answer, wanted) for answer, wanted in zip(answers, expected, strict=True)])


def rouge(answers: Texts, expected: Texts) -> Statistic:
    """F-measure of ROUGE-L, mean over the records (Lin 2004)."""
    from torchmetrics.functional.text.rouge import rouge_score

    return _mean([
        float(rouge_score(answer, wanted, rouge_keys="rougeL")["rougeL_fmeasure"])
        for answer, wanted in zip(answers, expected, strict=True)
    ])  # fmt: skip


def bleu(answers: Texts, expected: Texts) -> Statistic:
    """Of the corpus, from 0 to 1 (Papineni et al. 2002, as sacrebleu counts it, Post 2018)."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU()
    found = [metric.corpus_score([answer], [[wanted]]) for answer, wanted in zip(answers, expected, strict=True)]
    sums = np.array([(*each.counts, *each.totals, each.sys_len, each.ref_len) for each in found])

    def statistic(weights: Weights) -> float:
        *grams, ours, theirs = (int(total) for total in weights @ sums)
        order = len(grams) // 2
        return float(BLEU.compute_bleu(grams[:order], grams[order:], ours, theirs).score) / 100

    return statistic


def perplexity(nats: Sequence[float], tokens: Sequence[int]) -> Statistic:
    """exp of the mean loss in nats for each token, from 1 to WORST; ``nats``, ``tokens``: of each record's expected
    answer."""
    lost, counted = np.array(nats), np.array(tokens)
    most = np.log(WORST)
    return lambda weights: float(np.exp(np.clip(_share(weights @ lost, weights @ counted), 0, most)))


MEASURES: dict[Metric, Callable[[Texts, Texts, str], Statistic]] = {
    Metric.F1: f1,
    Metric.BLEU: lambda answers, expected, task: bleu(answers, expected),
    Metric.ROUGE: lambda answers, expected, task: rouge(answers, expected),
}


def _mean(values: Sequence[float]) -> Statistic:
    found = np.array(values)
    return lambda weights: _share(weights @ found, weights.sum())


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0

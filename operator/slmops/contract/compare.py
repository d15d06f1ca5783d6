"""Variants of a model side by side."""

from typing import Literal

from slmops.contract.base import Message
from slmops.contract.report import Pruned
from slmops.contract.sources import Run, Sink


class Compared(Message):
    """A variant in one precision, and what was measured of it."""

    name: str
    precision: str
    image: str
    """``registry/repository@sha256:…``"""
    outcome: Literal["Ready", "Rejected"]
    quality: float
    """Share of right answers, from 0 to 1."""
    seconds: float | None = None
    """Median of an answer."""
    memory_bytes: int | None = None
    weight_bytes: int
    pruned: Pruned | None = None
    optimal: bool
    """No other one is as good in quality, time, memory and weights, and better in one of them."""


class CompareRun(Run):
    """Publish ``comparison``: the variants as a page with pictures and for machines."""

    type: Literal["Compare"] = "Compare"
    measure: Literal["Accuracy", "ExactMatch"]
    """What quality stands for."""
    rows: tuple[Compared, ...]
    output: Sink

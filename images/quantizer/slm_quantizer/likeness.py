"""How alike two models answer: next-token logits compared as directions, since only the order of words counts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slmkit.run import RunFailed
from slmops.contract import Reason

SIMILARITY = {"FP32": 0.9999, "FP16": 0.999, "INT8": 0.99, "INT4": 0.9}
"""Least cosine similarity between the next-token logits of the converted model and of the original, averaged over the
prompts. A model that reads wrong weights is near zero; rounding costs at most this."""


def likeness(wanted: NDArray[np.float32], found: NDArray[np.float32], prompt: str) -> float:
    """Cosine similarity of the centred logits after a prompt. Raises RunFailed where they cannot be compared."""
    if wanted.shape != found.shape:
        raise _failed(f"the converted model has {found.shape[0]} logits instead of {wanted.shape[0]}")
    if broken := int((~np.isfinite(found)).sum()):
        raise _failed(f"{broken} of the converted model's {len(found)} logits after {prompt[:40]!r} are no numbers")
    return cosine(wanted, found)


def enough(found: Sequence[float], precision: str) -> float:
    """The mean of the similarities. Raises RunFailed where it is too low."""
    mean = float(np.mean(found))
    if not mean >= SIMILARITY[precision]:
        raise _failed(f"next-token logits are {mean:.4f} similar to the original's, {SIMILARITY[precision]} is the least "
                      f"for {precision}")  # fmt: skip
    return mean


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Cosine similarity of two centred vectors; NaN where one of them is all the same."""
    a, b = a - a.mean(), b - b.mean()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else float("nan")


def _failed(text: str) -> RunFailed:
    return RunFailed(Reason.VERIFICATION_FAILED, text)

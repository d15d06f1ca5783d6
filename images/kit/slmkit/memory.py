"""Memory that ran out, told from whatever a library raises, or from what a process said before it ended."""

import re

WORDS = re.compile(
    r"OutOfMemoryError|\bMemoryError\b|out of memory|not enough memory|ALLOC_FAILED|bad_alloc|Failed to allocate memory"
)
"""As PyTorch says it of a GPU and of a CPU, Python, CUDA, cuBLAS, C++ and ONNX Runtime."""


def ran_out(error: BaseException) -> bool:
    """Whether there was no memory left."""
    return WORDS.search(f"{type(error).__name__}: {error}") is not None


def last_words(said: str) -> str | None:
    """The line that says so among the last ones of a process; None where none does."""
    return next((line.strip() for line in reversed(said.splitlines()[-20:]) if WORDS.search(line)), None)

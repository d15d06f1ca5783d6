"""What an answer is in each task. Records whose answers are none are refused before the training. Pure."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from slmkit.data import Example
from slmkit.run import RunFailed
from slmops.contract import Reason

LABELS = 1000
"""More different answers than this are no labels."""


class Records(Protocol):
    """Records that can be read again and again."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Example]: ...


def check(task: str, training: Records, *apart: Records) -> None:
    """Raise RunFailed at the first record that is none of this task. ``apart``: sets that are held out."""
    if task == "Classification":
        _labels(training, apart)
    fault = FAULTS.get(task)
    if fault is None:
        return
    for kind, examples in (("", training), *(("held-out ", held_out) for held_out in apart)):
        for number, example in enumerate(examples, 1):
            if example.completion is not None and (what := fault(example)):
                raise _invalid(task, f"{kind}{example.place(number)}: {what}: {_short(example.completion)}")


def _labels(training: Records, apart: Sequence[Records]) -> None:
    labels = set[str | None]()
    for example in training:
        labels.add(example.completion)
        if len(labels) > LABELS:  # texts: they would not all fit into memory
            break
    if len(labels) < 2:
        raise _invalid("Classification", "all records that are trained on have the same label")
    if len(labels) > LABELS or len(labels) > len(training) / 2:
        found = f"more than {LABELS}" if len(labels) > LABELS else str(len(labels))
        raise _invalid("Classification", f"{found} different answers in {len(training)} records are no labels; use task "
                       "Generation")  # fmt: skip
    for number, example in (numbered for held_out in apart for numbered in enumerate(held_out, 1)):
        if example.completion is not None and example.completion not in labels:
            where = f"held-out {example.place(number)}"
            raise _invalid("Classification", f"{where} has the label {_short(example.completion)}, which no record that is "
                           "trained on has")  # fmt: skip


def _no_json(example: Example) -> str | None:
    try:
        found = json.loads(example.completion or "")
    except (ValueError, RecursionError):
        return "the answer is no JSON"
    return None if isinstance(found, dict | list) else "the answer is JSON, and no object or list"


def _no_shorter(example: Example) -> str | None:
    asked = sum(len(message["content"]) for message in example.prompt)
    return None if len(example.completion or "") < asked else "the summary is no shorter than what it sums up"


FAULTS: dict[str, Callable[[Example], str | None]] = {"Extraction": _no_json, "Summarization": _no_shorter}
"""What is wrong with one record's answer, by task."""


def _invalid(task: str, what: str) -> RunFailed:
    return RunFailed(Reason.INVALID_DATA, f"task {task}: {what}")


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."

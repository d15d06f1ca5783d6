"""Records with a worse answer beside the better one: both share a batch."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from slm_trainer.batch import Batch
from slm_trainer.encoding import encode
from slm_trainer.store import Record, TokenStore, Writer, lengths
from slm_trainer.tokens import collate
from slmkit.data import Example
from slmkit.run import RunFailed
from slmops.contract import Reason


class Pairs(Sequence[Record]):
    """The records with their better answers; the worse ones lie beside, in the same order."""

    def __init__(self, better: Sequence[Record], worse: Sequence[Record]) -> None:
        self.better, self.worse = better, worse

    def __len__(self) -> int:
        return len(self.better)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        return self.better[index]

    @property
    def answers(self) -> int:
        """Tokens of all better answers together."""
        return sum(len(record.tokens) - record.start for record in self.better)

    def batches(self, size: int, pad: int, seed: int) -> Iterator[Batch]:
        """One epoch of batches of ``size`` pairs: first the better answers, then the worse ones. Pairs of like length
        share a batch, the batches come in random order."""
        rng = np.random.default_rng(seed)
        order = np.lexsort((rng.random(len(self)), np.maximum(lengths(self.better), lengths(self.worse))))
        for begin in rng.permutation(np.arange(0, len(order), size)):
            chosen = [int(number) for number in order[begin : begin + size]]
            rows = [*(self.better[number] for number in chosen), *(self.worse[number] for number in chosen)]
            tokens, mask, labels = collate(rows, pad)
            yield Batch(tokens, mask, labels, answered=len(chosen), paired=True)


def encode_pairs(tokenizer: Any, examples: Iterable[Example], longest: int, into: Path) -> tuple[Pairs, int]:
    """Pairs, and how many examples were dropped because one of their answers was longer than ``longest`` tokens."""
    dropped = 0
    with Writer(into / "better") as better, Writer(into / "worse") as worse:
        for number, example in enumerate(examples, 1):
            if example.rejected is None:
                text = f"loss Contrastive: {example.place(number)}: a record to train on has no rejected"
                raise RunFailed(Reason.INVALID_DATA, text)
            other = Example(example.prompt, example.rejected)
            (good, _), (bad, _) = (encode(tokenizer, [one], longest) for one in (example, other))
            if good and bad:
                better.extend(good)
                worse.extend(bad)
            else:
                dropped += 1
    return Pairs(TokenStore(into / "better"), TokenStore(into / "worse")), dropped

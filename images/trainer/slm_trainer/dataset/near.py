"""Near duplicates: MinHash signatures in a locality-sensitive index (Broder 1997; Leskovec, Rajaraman and Ullman, "Mining
of Massive Datasets", chapter 3). Signatures and the choice of bands are datasketch's; the index is on disk."""

import re
from pathlib import Path

import numpy as np
from datasketch import MinHash, MinHashLSH

from slm_trainer.dataset.seen import database
from slmkit.data import Example

PERMUTATIONS = 128
"""The estimate of a similarity s has a standard error of √(s(1-s)/128): 3.5 points at 80 %."""
MARGIN, MISSED = 0.1, (0.1, 0.9)
"""The index finds candidates, which are then compared: one too many costs a comparison, one missed is kept. So it looks
for less than what is wanted; with this it misses about 1 in 100 of those that are just as similar as that."""
SHINGLE = 3
"""Words that are compared together."""
CANDIDATES = 64
"""Earlier records that are looked at for each band."""
WORD = re.compile(r"\w+")


class NearDuplicates:
    """Drops a record whose prompt (or whole text) is like that of one that was kept before.

    Likeness is the Jaccard similarity of the sets of three words in a row, capitals and punctuation left out. In a
    prompt, system messages do not count: they are the same in all records.
    """

    def __init__(self, similarity: float, path: Path) -> None:
        self._similarity = similarity
        bands = MinHashLSH(threshold=max(similarity - MARGIN, MARGIN), num_perm=PERMUTATIONS, weights=MISSED)
        self._ranges = [(band * bands.r, (band + 1) * bands.r) for band in range(bands.b)]
        self._database = database(path)
        self._database.execute("CREATE TABLE signatures (id INTEGER PRIMARY KEY, hashes BLOB)")
        self._database.execute("CREATE TABLE bands (band INTEGER, hashes BLOB, id INTEGER, PRIMARY KEY (band, hashes, id))"
                               " WITHOUT ROWID")  # fmt: skip

    def __call__(self, example: Example) -> str | None:
        """``NearDuplicate``, or None for a record to keep."""
        found = shingles(example)
        if not found:
            return None
        hashes = signature(found)
        bands = [(band, hashes[begin:end].tobytes()) for band, (begin, end) in enumerate(self._ranges)]
        candidates: set[int] = set()
        for band in bands:
            rows = self._database.execute(
                "SELECT id FROM bands WHERE band = ? AND hashes = ? LIMIT ?", (*band, CANDIDATES)
            )
            candidates.update(number for (number,) in rows)
        if any(self._like(hashes, number) for number in candidates):
            return "NearDuplicate"
        number = self._database.execute("INSERT INTO signatures (hashes) VALUES (?)", (hashes.tobytes(),)).lastrowid
        self._database.executemany("INSERT INTO bands VALUES (?, ?, ?)", [(*band, number) for band in bands])
        return None

    def _like(self, hashes: np.ndarray, number: int) -> bool:  # type: ignore[type-arg]
        (stored,) = self._database.execute("SELECT hashes FROM signatures WHERE id = ?", (number,)).fetchone()
        return float(np.mean(np.frombuffer(stored, hashes.dtype) == hashes)) >= self._similarity

    def close(self) -> None:
        """Forget all."""
        self._database.close()


def shingles(example: Example) -> set[str]:
    """Three words in a row each; a shorter text is one shingle."""
    said = (message["content"] for message in example.prompt if message["role"] != "system")
    words = WORD.findall(((example.completion or "") if example.plain else "\n".join(said)).lower())
    return {" ".join(words[begin : begin + SHINGLE]) for begin in range(max(1, len(words) - SHINGLE + 1))} - {""}


def signature(shingles: set[str]) -> np.ndarray:  # type: ignore[type-arg]
    """The MinHash of a set: ``PERMUTATIONS`` numbers of which the share s is equal in two sets of similarity s."""
    made = MinHash(num_perm=PERMUTATIONS, seed=1)
    made.update_batch([shingle.encode() for shingle in sorted(shingles)])
    return np.asarray(made.hashvalues)

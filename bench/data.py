"""``python -m bench data``: what preparing a training and labelling hold in memory, for a small data set and a large one.

Both sets are generated, and each is read, sifted and encoded by the trainer's own code in a process of its own, and
labelled in another; the peak resident memory is what the kernel says at its end. Two things are stand-ins: the tokenizer,
for which every word is a token (those of models need PyTorch's libraries, and keep no more for a larger set), and the
teacher, which answers at once.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.figures import Figure, mb

SMALL, LARGE = 50_000_000, 1_000_000_000
"""Bytes of JSON Lines."""
ALLOWED = 1.2
Measured = dict[str, float]
WORDS = {"prepare": "records read, sifted and encoded", "label": "records read, asked and sifted"}
SENTENCES = 5000
DOUBLED = 0.05


def run() -> list[Figure]:
    """Generate, prepare, label, compare."""
    return table({size: measure(size) for size in (SMALL, LARGE)})


def table(found: dict[int, dict[str, Measured]]) -> list[Figure]:
    """The figures of what was measured, by size of the set."""
    figures = []
    for what, words in WORDS.items():
        small, large = found[SMALL][what], found[LARGE][what]
        ratio = large["peak"] / small["peak"]
        figures += [
            Figure(
                f"memory to {what} a data set of 1 GB",
                f"at most {ALLOWED}x that of 50 MB",
                f"{mb(large['peak'])} against {mb(small['peak'])}: {ratio:.2f}x",
                ratio <= ALLOWED,
            ),
            Figure(
                words,
                "",
                f"{large['read']:,.0f}, {large['kept']:,.0f} of them kept, "
                f"{large['read'] / large['seconds']:,.0f} a second",
            ),
        ]
    return figures


def measure(size: int) -> dict[str, Measured]:
    """Prepare and label a set of so many bytes, each in a process of its own."""
    found: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(prefix="slmops-bench-data-") as folder:
        begun = time.monotonic()
        generate(Path(folder) / "claim" / "train.jsonl", size)
        print(f"data: {mb(size)} made in {time.monotonic() - begun:.0f} s", flush=True)
        for what in WORDS:
            done = subprocess.run([sys.executable, "-m", "bench.preparing", what, folder], capture_output=True, text=True,
                                  check=False)  # fmt: skip
            if done.returncode:
                raise RuntimeError(f"{what} with {mb(size)} ended with {done.returncode}: {done.stderr[-2000:]}")
            found[what] = json.loads(done.stdout.splitlines()[-1])
            took, peak = found[what]["seconds"], found[what]["peak"]
            print(f"data: {what} {mb(size)}: {took:.0f} s, {mb(peak)} at most", flush=True)
            shutil.rmtree(Path(folder) / "work")
    return found


def generate(path: Path, size: int) -> None:
    """A data set of at least ``size`` bytes: records of about 1 kB, each twentieth a double of an earlier one."""
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(20_000)]
    sentences = [" ".join(rng.choices(words, k=rng.randint(6, 24))) for _ in range(SENTENCES)]
    path.parent.mkdir(parents=True)
    written = 0
    with path.open("w") as file:
        before = ""
        while written < size:
            if not before or rng.random() > DOUBLED:
                prompt, answer = ". ".join(rng.choices(sentences, k=7)), ". ".join(rng.choices(sentences, k=3))
                record = {"prompt": f"{rng.getrandbits(64):x}: {prompt}", "completion": answer}
                before = json.dumps(record) + "\n"
            written += file.write(before)

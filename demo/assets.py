"""What the demo starts from: data sets, and a teacher trained on the spot. Nothing binary is kept in git.

Everything is addressed by a hash of what it is made from, so a second demo pushes and trains nothing.
"""

import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from demo.task import BASE_DOMAINS, IRRIGATION, Domain, examples
from slmkit.data import Example, write_messages
from slmkit.registry import Registry
from slmops import contract
from slmops.contract import DATASET_TYPE, Architecture, Data, Evaluation, ExampleFormat, Hyperparameters, Sink, Source

TEACHER_RECORDS, PROMPTS, HELD_OUT, ADAPT, BENCHMARK = 30_000, 8_000, 400, 6_000, 200
TAG = "v1"
"""What the examples under crds/examples/ name; the operator resolves it to a digest."""


def records(
    domains: tuple[Domain, ...], seed: int, count: int, held_out: bool = False, answers: bool = True
) -> list[Example]:
    """Records of the task."""
    found = itertools.islice(examples(domains, seed, held_out), count)
    return [Example(({"role": "user", "content": e.prompt},), e.completion if answers else None) for e in found]


def datasets() -> dict[str, dict[str, list[Example]]]:
    """All data sets, by name and file."""
    return {
        "farm-lessons": {
            "train.jsonl": records(BASE_DOMAINS, 1, TEACHER_RECORDS),
            "validation.jsonl": records(BASE_DOMAINS, 2, HELD_OUT, held_out=True),
        },
        "farm-prompts": {
            "train.jsonl": records(BASE_DOMAINS, 3, PROMPTS, answers=False),
            "validation.jsonl": records(BASE_DOMAINS, 2, HELD_OUT, held_out=True),
        },
        "irrigation": {
            "train.jsonl": records((IRRIGATION,), 4, ADAPT),
            "validation.jsonl": records((IRRIGATION,), 5, HELD_OUT, held_out=True),
        },
        "farm-benchmark": {"benchmark.jsonl": records(BASE_DOMAINS, 6, BENCHMARK, held_out=True)},
        "irrigation-benchmark": {"benchmark.jsonl": records((IRRIGATION,), 7, BENCHMARK, held_out=True)},
    }


def push_datasets(registry: str, access: contract.Registry) -> dict[str, str]:
    """Push the data sets. Returns their addresses by digest."""
    client = Registry(access)
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, files in datasets().items():
            paths = {file: _write(Path(folder, name, file), found) for file, found in files.items()}
            sink = Sink(repository=f"{registry}/slm/data/{name}")
            artifact = client.push_artifact(sink, paths, DATASET_TYPE, {})
            client.tag(sink, artifact, TAG)
            made[name] = f"oci://{artifact.reference}"
    return made


def _write(path: Path, found: Iterable[Example]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_messages(path, found)
    return path


def teacher_run(registry: str, access: contract.Registry, lessons: str) -> contract.TrainRun:
    """The run that trains the teacher: 9.8 million parameters, from nothing."""
    source = Source(uri=lessons)

    def part(path: str) -> Data:
        return Data(source=source, format=ExampleFormat.MESSAGES, path=path)

    return contract.TrainRun(
        run="teacher",
        registry=access,
        architecture=Architecture(
            hidden_size=384, layers=6, attention_heads=6, key_value_heads=2, intermediate_size=1152,
            vocabulary_size=1023,
        ),
        train=part("train.jsonl"),
        validation=part("validation.jsonl"),
        hyperparameters=Hyperparameters(epochs=1, batch_size=32, learning_rate=1e-3, warmup_ratio=0.05),
        evaluation=Evaluation(samples=200, max_new_tokens=64, untrained_baseline=False),
        output=Sink(repository=f"{registry}/slm/teacher"),
    )  # fmt: skip


def fingerprint(run: contract.TrainRun) -> str:
    """A short name for what a run would make; a new field of the contract changes it no more than its result."""
    wanted = json.dumps(run.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
    return hashlib.sha256(wanted.encode()).hexdigest()[:12]

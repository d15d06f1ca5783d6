"""Records and a model that are made in a moment, for end-to-end tests that look at what is made, not at how good it is."""

import random
from pathlib import Path

from demo.assets import records
from demo.steps import train_once
from demo.task import IRRIGATION
from slmkit.data import Example, write_messages
from slmkit.registry import Registry
from slmops import contract
from slmops.contract import (
    DATASET_TYPE,
    Architecture,
    Data,
    Evaluation,
    ExampleFormat,
    Hyperparameters,
    Sink,
    Source,
)
from tests.e2e.platform import Platform

RANDOM = random.Random(9)
ONE_AT_A_TIME = {"nodeSelector": {"pool": "gpu"}, "retries": 0, "resources": {"requests": {"cpu": "1200m"}}}
"""How trainings run: two on the cores of one take longer than one and then the other."""
A_CORE_EACH = {
    "nodeSelector": {"pool": "gpu"}, "retries": 0, "resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": 1}},
}  # fmt: skip
"""How they run where two are to run side by side."""


def client(platform: Platform) -> Registry:
    """The registry of the cluster."""
    return Registry(contract.Registry(plain_http=platform.cluster.plain_http))


def dataset(platform: Platform, folder: Path, name: str, made: list[Example]) -> str:
    """Push records. Returns their address."""
    path = folder / "train.jsonl"
    write_messages(path, made)
    return publish(platform, name, path)


def publish(platform: Platform, name: str, *files: Path) -> str:
    """Push files as a data set. Returns their address."""
    sink = Sink(repository=f"{platform.registry}/slm/data/{name}")
    made = client(platform).push_artifact(sink, {path.name: path for path in files}, DATASET_TYPE, {})
    return f"oci://{made.reference}"


def by_heart(count: int) -> list[Example]:
    """Answers that follow from nothing."""
    words = ["open", "close", "water", "feed", "light", "heat", "cool", "dry"]
    return [
        Example(({"role": "user", "content": f"code {RANDOM.randrange(10**6)}"},), " ".join(RANDOM.choices(words, k=4)))
        for _ in range(count)
    ]


def two_tasks(platform: Platform, folder: Path, name: str) -> dict[str, str]:
    """Addresses of records, by the name of the adapter that is to learn from them."""
    return {
        "irrigation": dataset(platform, folder, f"{name}-chores", records((IRRIGATION,), 4, 120)),
        "noise": dataset(platform, folder, f"{name}-noise", by_heart(60)),
    }


def base(platform: Platform, folder: Path) -> str:
    """Train a model of 150,000 parameters on records of one task. Returns its address."""
    name, data = "toy", dataset(platform, folder, "toy", records((IRRIGATION,), 4, 200))
    run = contract.TrainRun(
        run=name, registry=contract.Registry(plain_http=platform.cluster.plain_http),
        architecture=Architecture(hidden_size=64, layers=2, attention_heads=2, key_value_heads=1, intermediate_size=192,
                                  vocabulary_size=511),
        train=Data(source=Source(uri=data), format=ExampleFormat.MESSAGES),
        hyperparameters=Hyperparameters(max_steps=60, batch_size=16, learning_rate=0.003),
        evaluation=Evaluation(samples=2, max_new_tokens=2, untrained_baseline=False),
        output=Sink(repository=f"{platform.registry}/slm/{name}"),
    )  # fmt: skip
    return f"oci://{train_once(platform.kubectl, platform.images, run, name, print).reference}"

"""``python -m bench adapters``: what a changed adapter costs on the wire.

A model of 100 MB with two adapters is published as the quantizer packs it; one adapter is learned anew, and it is published
and fetched again by somebody who has the image of before. Model and adapters are random bytes: nothing here reads them. An
adapter is as small as one of a model with half a billion parameters, so that requests, manifests, and the list of adapters
count, too.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench import image
from bench.figures import Figure
from bench.pushing import ADAPTERS, MODEL
from slmkit.safety.adapters import LIST, SUFFIX, digest

WEIGHTS, ADAPTER = 100_000_000, 1_000_000
"""Bytes."""
NAMES = ("greenhouse", "irrigation")


@dataclass(frozen=True)
class Measured:
    """Bytes on the wire."""

    again: int
    """That a push of the same sends, …"""
    changed: int
    """… that a push with a new adapter sends, …"""
    pulled: int
    """… and that a pull of it fetches."""


def run() -> list[Figure]:
    """Publish, change, publish, fetch. Needs no cluster."""
    image.programs()
    with tempfile.TemporaryDirectory(prefix="slmops-bench-adapters-") as folder:
        return judge(measure(Path(folder)))


def judge(found: Measured) -> list[Figure]:
    """The figures."""
    return [
        Figure("bytes that a second push of a model with two adapters sends",
               f"at most {image.TALK / 1e6:.2f} MB: requests and manifests", f"{found.again / 1e6:.3f} MB",
               found.again <= image.TALK),
        image.share("bytes that a push with one of two adapters changed sends", found.changed, ADAPTER),
        image.share("bytes that a pull of it fetches", found.pulled, ADAPTER),
    ]  # fmt: skip


def measure(folder: Path) -> Measured:
    """All of it."""
    files = folder / "files"
    generate(files)

    def learn() -> None:
        adapter(files / MODEL, NAMES[1])
        listed(files / MODEL)

    return Measured(*image.wire(folder, files, learn))


def generate(folder: Path) -> None:
    """A model that nothing compresses, and its adapters beside it."""
    (folder / ADAPTERS).mkdir(parents=True)  # what is a layer each without a model: nothing here
    model = folder / MODEL
    (model / "adapters").mkdir(parents=True)
    (model / "model.onnx.data").write_bytes(os.urandom(WEIGHTS))
    (model / "model.onnx").write_bytes(os.urandom(100_000))
    (model / "tokenizer.json").write_bytes(os.urandom(2_000_000))
    (model / "genai_config.json").write_text("{}")
    for name in NAMES:
        adapter(model, name)
    listed(model)


def adapter(model: Path, name: str) -> None:
    """A new one of this name."""
    (model / "adapters" / f"{name}{SUFFIX}").write_bytes(os.urandom(ADAPTER))


def listed(model: Path) -> None:
    """The list of adapters, with their digests."""
    files = sorted((model / "adapters").iterdir())
    told = {path.stem: {"file": f"adapters/{path.name}", "digest": digest(path)} for path in files}
    (model / LIST).write_text(json.dumps(told, indent=2, sort_keys=True))

"""What the tests of the quantizer inside its image share: a wish, records to calibrate with, and what a model has lost."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from slm_quantizer.runtimes import Runtime, Torch
from slm_quantizer.verify import look
from slm_trainer.encoding import encode
from slm_trainer.store import TokenStore
from slmops.contract import QuantizeRun, Sink, Source, Verification
from tests.unit.images.toys import EXAMPLES

PROMPTS = ("open gate 1", "code 3", "close gate 2 now")


def wish(**fields: Any) -> QuantizeRun:
    """A variant in INT4, unless told otherwise."""
    plain: dict[str, Any] = {"precision": "INT4"}
    return QuantizeRun(run="x", model=Source(uri="oci://registry.example/x:v1"), name="x", variant="v",
                       output=Sink(repository="registry.example/y"), **(plain | fields))  # fmt: skip


def tokens(model: Path, folder: Path) -> Path:
    """The examples as the model's tokenizer cuts them: the folder of a TokenStore."""
    encode(Torch(model).tokenizer, EXAMPLES, 512, folder)
    return folder


def alike(original: Path, converted: Path, load: Callable[[Path], Runtime], precision: str) -> Verification:
    """How alike a converted model is to the original. Raises RunFailed like ``look``."""
    return look(Torch(original), partial(load, converted), precision, PROMPTS).verification


def lost(model: Path, other: Path, records: Path) -> float:
    """Squared error of all logits on the records."""
    wanted, found = Torch(model).model, Torch(other).model
    with torch.inference_mode():
        return sum(
            float((wanted(input_ids=tokens).logits - found(input_ids=tokens).logits).square().sum())
            for record in TokenStore(records)
            for tokens in [torch.tensor([record.tokens])]
        )

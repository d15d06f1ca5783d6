"""The formats, a line each: what builds it, and which runtime it is tried in."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from slm_quantizer import compressed, external, onnx
from slm_quantizer.passes import Passes
from slm_quantizer.runtimes import GenAI, Runtime, Torch
from slmkit.run import RunFailed
from slmops.contract import QuantizeRun, Reason


class Build(Protocol):
    """(checked model folder, what is wanted, calibration records, folder to work in) -> folder with the result."""

    def __call__(
        self, model: Path, run: QuantizeRun, records: Path | None, work: Path, passes: Passes = ..., /
    ) -> Path: ...


@dataclass(frozen=True)
class Backend:
    """How a format is made and tried."""

    build: Build
    load: Callable[[Path], Runtime]


BACKENDS = {"ONNX": Backend(onnx.build, GenAI), "Safetensors": Backend(compressed.build, Torch)}
"""What this image has in itself."""


def backend(format: str) -> Backend:
    """The backend of a format. Raises RunFailed, BackendUnavailable, where this image has none."""
    if format in BACKENDS:
        return BACKENDS[format]
    program = external.program(format)
    if not program.is_file():
        raise RunFailed(
            Reason.BACKEND_UNAVAILABLE, f"this image has no tool chain for {format}: {program} is not there"
        )
    return Backend(external.build, partial(external.Program, format))

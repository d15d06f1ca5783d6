"""Number formats of the forward and backward pass. Weights and optimizer state stay in FP32."""

import logging
from pathlib import Path
from typing import Any, Literal

import torch

from slmops.contract import TrainRun

Precision = Literal["Auto", "FP32", "BF16", "FP16"]
FORMATS = {"BF16": torch.bfloat16, "FP16": torch.float16}
PROCESSORS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of Linux for instructions that multiply in BF16, of x86 and of Arm. A processor without them converts each number
to and fro, and is slower than in FP32."""
ABOUT = Path("/proc/cpuinfo")
log = logging.getLogger("slm_trainer")


def decided(run: TrainRun) -> TrainRun:
    """The run with its number format, which its documents are to name."""
    wanted = run.hyperparameters
    precision = settled(wanted.precision, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    log.info("precision", extra={"precision": precision})
    return run.model_copy(update={"hyperparameters": wanted.model_copy(update={"precision": precision})})


def settled(precision: Precision, device: torch.device, about: Path = ABOUT) -> Literal["FP32", "BF16", "FP16"]:
    """What Auto means on a device. ``about``: what Linux says of the processor."""
    if precision != "Auto":
        return precision
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else _computes(about)
    return "BF16" if native else "FP32"


def _computes(about: Path) -> bool:
    """Whether the processor computes in BF16."""
    try:
        lines = about.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not PROCESSORS.isdisjoint(flags.partition(":")[2].split())


def autocast(precision: Precision, device: torch.device) -> Any:
    """The context of a forward pass."""
    chosen = settled(precision, device)
    return torch.autocast(device.type, dtype=FORMATS.get(chosen, torch.bfloat16), enabled=chosen in FORMATS)


def grad_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Keeps small gradients of FP16 from becoming zero (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2); does
    nothing for the other formats. A step whose gradients overflow is left out, and the scale halved."""
    return torch.amp.GradScaler(device.type, enabled=precision == "FP16")

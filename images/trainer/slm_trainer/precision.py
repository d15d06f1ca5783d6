"""Number formats of the forward and backward pass. Weights and optimizer state stay in FP32."""

from typing import Any, Literal

import torch

Precision = Literal["FP32", "BF16", "FP16"]
FORMATS = {"BF16": torch.bfloat16, "FP16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> Any:
    """The context of a forward pass."""
    return torch.autocast(device.type, dtype=FORMATS.get(precision, torch.bfloat16), enabled=precision in FORMATS)


def grad_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Keeps small gradients of FP16 from becoming zero (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2); does
    nothing for the other formats. A step whose gradients overflow is left out, and the scale halved."""
    return torch.amp.GradScaler(device.type, enabled=precision == "FP16")

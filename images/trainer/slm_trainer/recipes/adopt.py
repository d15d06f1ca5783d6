"""An adapter that another engine has learned: nothing is learned here. It counts when it is there to the last tensor."""

from pathlib import Path
from typing import Any

import torch

from slm_trainer.recipes import lora
from slmkit.run import RunFailed
from slmops.contract import Reason


def prepare(model: Any, adapter: Path) -> Any:
    """The base with the adapter beside it. Raises RunFailed where the adapter does not fit it or learned nothing."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    missing = [name for name in lora.FILES if not (adapter / name).is_file()]
    if missing:
        raise RunFailed(Reason.ADAPTER_UNUSABLE, f"the adapter has no {missing[0]}")
    try:
        given = load_file(adapter / lora.FILES[1])
        adapted = PeftModel.from_pretrained(model, adapter)
    except Exception as error:
        raise RunFailed(Reason.ADAPTER_UNUSABLE, f"the adapter does not fit the base: {error}") from None
    loaded = get_peft_model_state_dict(adapted)
    lost = sorted(set(given) ^ set(loaded))
    if lost:
        raise RunFailed(Reason.ADAPTER_UNUSABLE, f"{len(lost)} tensors fit nowhere in the base, for example {lost[0]}")
    check(given)
    return adapted


def check(tensors: dict[str, torch.Tensor]) -> None:
    """Raise RunFailed where an update is not finite, or all updates are zero as they were at the start."""
    broken = [name for name, value in tensors.items() if not value.isfinite().all()]
    if broken:
        raise RunFailed(Reason.ADAPTER_UNUSABLE, f"{broken[0]} of the adapter holds what is no number")
    updates = [value for name, value in tensors.items() if "lora_B" in name]
    if not any(bool(value.any()) for value in updates):
        raise RunFailed(Reason.ADAPTER_UNUSABLE, "the adapter learned nothing: all of its updates are zero")


finish = lora.finish

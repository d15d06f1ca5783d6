"""LoRA: frozen weights, and small low-rank updates beside them that learn (Hu et al. 2021, arXiv 2106.09685)."""

import json
from pathlib import Path
from typing import Any

from slmkit.run import RunFailed
from slmops.contract import Lora, Reason, TrainRun

FILES = ("adapter_config.json", "adapter_model.safetensors")


def prepare(model: Any, folder: Path | None, run: TrainRun) -> Any:
    """The model with updates that do nothing yet."""
    return with_lora(model, run.lora)


def finish(model: Any, folder: Path | None, work: Path) -> tuple[Any, dict[str, Path]]:
    """The updates added to the weights, and the updates by themselves."""
    adapter = save_adapter(model, work / "adapter")
    return model.merge_and_unload(), adapter


def with_lora(model: Any, lora: Lora, **options: Any) -> Any:
    """The model with frozen weights and trainable low-rank updates beside them."""
    from peft import LoraConfig, get_peft_model

    targets = lora.target_modules[0] if lora.target_modules == ("all-linear",) else list(lora.target_modules)
    try:
        return get_peft_model(model, LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout,
                                                target_modules=targets, task_type="CAUSAL_LM", **options))  # fmt: skip
    except ValueError as error:
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"lora.targetModules: {error}") from None


def save_adapter(model: Any, folder: Path) -> dict[str, Path]:
    """Write the updates in PEFT's layout, the same bytes for the same updates. Returns the files by name."""
    model.save_pretrained(folder, safe_serialization=True)
    path = folder / FILES[0]
    config = json.loads(path.read_text())
    # PEFT keeps names in a set, whose order differs from process to process, and the base's place in this pod.
    config = {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()}
    path.write_text(json.dumps(config | {"base_model_name_or_path": None}, indent=2, sort_keys=True) + "\n")
    return {path.name: path for path in sorted(folder.iterdir()) if path.name in FILES}

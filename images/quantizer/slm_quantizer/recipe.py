"""A TrainRun as a Microsoft Olive workflow with one pass, LoRA or QLoRA; and what Olive itself would let pass is refused.

Olive ignores keys that it does not know, in passes as in training arguments, so a slip of ours would train something else
than was asked for.
"""

import dataclasses
from pathlib import Path
from typing import Any

from slm_quantizer import olive
from slmkit.run import RunFailed
from slmops.contract import Reason, TrainRun

RECORDS = "slmops_records"
SCHEDULERS = {"Constant": "constant_with_warmup", "Linear": "linear", "Cosine": "cosine",
              "WarmupStableDecay": "warmup_stable_decay"}  # fmt: skip
DTYPES = {"FP32": "float32", "BF16": "bfloat16", "FP16": "float16"}
COOLDOWN = 0.2
"""Share of the steps in which WarmupStableDecay falls, as in the trainer."""


def recipe(run: TrainRun, base: Path, records: Path, modules: list[str], steps: int, work: Path) -> dict[str, Any]:
    """The workflow. ``records``: folder of a TokenStore; ``modules``: names of the layers that get an update."""
    wanted = run.hyperparameters
    arguments: dict[str, Any] = {
        "learning_rate": wanted.learning_rate, "lr_scheduler_type": SCHEDULERS[wanted.scheduler],
        "warmup_steps": round(steps * wanted.warmup_ratio), "max_steps": steps, "weight_decay": wanted.weight_decay,
        "max_grad_norm": wanted.max_gradient_norm, "per_device_train_batch_size": wanted.batch_size,
        "gradient_accumulation_steps": wanted.gradient_accumulation, "seed": wanted.seed,
        "gradient_checkpointing": wanted.gradient_checkpointing, "adam_beta2": 0.95, "logging_steps": 1,
        "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False,
    }  # fmt: skip
    if wanted.scheduler == "WarmupStableDecay":
        arguments["lr_scheduler_kwargs"] = {"num_decay_steps": max(1, round(steps * COOLDOWN))}
    options: dict[str, Any] = {
        "type": run.method, "r": run.lora.rank, "alpha": run.lora.alpha, "lora_dropout": run.lora.dropout,
        "torch_dtype": DTYPES[wanted.precision], "training_args": arguments, "train_data_config": {
            "name": "records", "type": "DataContainer",
            "load_dataset_config": {"type": RECORDS, "folder": str(records)},
            "pre_process_data_config": {"type": "skip_pre_process"},
        },
    }  # fmt: skip
    if run.method == "QLoRA":
        # The pass adapts every layer that it quantizes.
        options |= {"quant_type": run.qlora.quant_type.lower(), "double_quant": run.qlora.double_quant,
                    "save_quant_config": False}  # fmt: skip
    else:
        options["target_modules"] = modules
    return {
        "input_model": {"type": "HfModel", "model_path": str(base),
                        "load_kwargs": {"attn_implementation": "eager"}},
        "systems": {"local": {"type": "LocalSystem", "accelerators": [
            {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]}},
        "passes": {"adapter": options}, "host": "local", "target": "local",
        "no_artifacts": True, "output_dir": str(work / "olive-out"), "cache_dir": str(work / "olive-cache"),
    }  # fmt: skip


def validate(workflow: dict[str, Any]) -> None:
    """Raise RunFailed where this version of Olive does not know a key, or does not take a value."""
    from transformers import TrainingArguments

    options = workflow["passes"]["adapter"]
    known = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    if unknown := sorted(set(options["training_args"]) - known):
        text = f"Olive's {options['type']} does not know {', '.join(unknown)}"
        raise RunFailed(Reason.INVALID_CONFIGURATION, text)
    olive.validate(workflow)

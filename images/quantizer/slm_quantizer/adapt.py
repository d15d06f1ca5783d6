"""An adapter by Microsoft Olive, top to bottom: sources, records, recipe, training, proof, publication.

Olive can end well without having learned anything, so what counts is the artefact: an adapter whose numbers are finite
and not those that it began with. The run that adopts it loads it beside the base and measures it.
"""

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, set_seed

from slm_quantizer.recipe import RECORDS, recipe, validate
from slm_quantizer.records import records
from slm_quantizer.telling import Telling, told
from slm_trainer.encoding import encode, turn_end
from slm_trainer.model import load_tokenizer
from slm_trainer.precision import decided
from slm_trainer.schedule import steps_an_epoch, total_steps
from slm_trainer.store import TokenStore
from slmkit.publish import beside
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.sources import fetch
from slmops.contract import ADAPTER_TYPE, Learning, Reason, Report, TrainRun

IGNORED = -100
FILES = ("adapter_config.json", "adapter_model.safetensors")


def adapt(run: TrainRun, context: Context) -> Report:
    """Learn an adapter and publish it."""
    if run.base is None or run.method not in ("LoRA", "QLoRA"):
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"Olive learns LoRA and QLoRA of a base here, not {run.method}")
    run = decided(run)
    registry = Registry(run.registry, meter=context)
    context.stage("Fetching")
    base = context.work / "base"
    context.inputs["base"] = fetch(run.base, base, registry)
    tokenizer = load_tokenizer(base, run.template)
    training = records(run, context, registry)
    wanted = run.hyperparameters
    encoded, dropped = encode(tokenizer, context.going(training), wanted.max_sequence_length, context.work / "tokens")
    if not encoded:
        raise RunFailed(Reason.INVALID_DATA, f"no record to train on: {dropped} of {len(training)} are longer than "
                        f"maxSequenceLength {wanted.max_sequence_length}")  # fmt: skip
    steps = total_steps(steps_an_epoch(len(encoded), wanted), wanted)
    _register()
    workflow = recipe(run, base, context.work / "tokens", layers(run, base), steps, context.work)
    validate(workflow)
    context.stage("Training", of=steps)
    telling = Telling(context)
    set_seed(wanted.seed)
    with told(telling):
        made = _run(workflow, context.work)
    telling.check()
    proven(made, run)
    context.stage("Publishing")
    files = {name: made / name for name in FILES}
    artifact = beside(registry, run, context, files, ADAPTER_TYPE)
    learned = Learning(steps=telling.steps, curve=telling.curve(), endless=turn_end(tokenizer) is None)
    return Report(outcome="Succeeded", artifacts={"adapter": artifact}, learning=learned)


def layers(run: TrainRun, base: Path) -> list[str]:
    """Names of the layers that get an update. Olive wants a list, so all-linear is looked up, without any weights."""
    if run.lora.target_modules != ("all-linear",):
        return list(run.lora.target_modules)
    with torch.device("meta"):
        config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    head = model.get_output_embeddings()
    linear = (name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and part is not head)
    return sorted({name.rpartition(".")[2] for name in linear})


def proven(folder: Path, run: TrainRun) -> None:
    """Raise RunFailed unless the folder holds an adapter as asked for, that has learned something."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise RunFailed(Reason.ADAPTER_UNUSABLE, f"Olive ended without {missing[0]}; its own words are in the log")
    path = folder / FILES[0]
    config = json.loads(path.read_text())
    if (config.get("peft_type"), config.get("r"), config.get("lora_alpha")) != ("LORA", run.lora.rank, run.lora.alpha):
        raise RunFailed(Reason.ADAPTER_UNUSABLE, f"Olive made an adapter of rank {config.get('r')} and alpha "
                        f"{config.get('lora_alpha')}, not {run.lora.rank} and {run.lora.alpha}")  # fmt: skip
    tensors = load_file(folder / FILES[1])
    broken = [name for name, value in tensors.items() if not value.isfinite().all()]
    if broken:
        raise RunFailed(Reason.TRAINING_DIVERGED, f"{broken[0]} of Olive's adapter holds what is no number")
    updates = [value for name, value in tensors.items() if "lora_B" in name]
    if not any(bool(value.any()) for value in updates):
        raise RunFailed(Reason.ADAPTER_UNUSABLE, "Olive's adapter learned nothing: all of its updates are zero")
    # The order of names and the base's place in this pod are no part of what was learned.
    config = {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()}
    path.write_text(json.dumps(config | {"base_model_name_or_path": None}, indent=2, sort_keys=True) + "\n")


def _run(workflow: dict[str, Any], work: Path) -> Path:
    """Run the workflow with a fresh cache. Returns the folder where an adapter should be."""
    from olive.workflows import run as run_olive

    out, cache = work / "olive-out", work / "olive-cache"
    for folder in (out, cache):
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.redirect_stdout(sys.stderr):
        run_olive(workflow)
    shutil.rmtree(cache, ignore_errors=True)
    return out / "adapter"


def _register() -> None:
    """Let Olive read the records as the trainer encodes them: the loss is that of the answer alone."""
    from olive.data.registry import Registry as Components

    Components.register_dataset(RECORDS)(records_of)


class _Records(torch.utils.data.Dataset[dict[str, list[int]]]):
    def __init__(self, store: TokenStore) -> None:
        self._store = store

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        record = self._store[index]
        length = len(record.tokens)
        labels = [IGNORED] * record.start + record.tokens[record.start :]
        return {"input_ids": record.tokens, "attention_mask": [1] * length, "labels": labels}


def records_of(folder: str) -> _Records:
    """The data set component that a recipe names."""
    return _Records(TokenStore(Path(folder)))

"""The model that a run begins from, as transformers reads it: what it cannot read is told before anything is computed."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

from slm_trainer.model import read_tokenizer
from slmkit.run import RunFailed
from slmops.contract import QuantizeRun, Reason

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, StrictDataclassError)
"""What transformers raises over files that are not as it expects them."""


def understood(model: Path, run: QuantizeRun) -> Any:
    """The tokenizer of a checked model folder that can be quantized as the run asks for. Raises RunFailed,
    UnsupportedModel, where configuration, weights, tokenizer, or a chat template that is needed is missing or unknown."""
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    except UNREADABLE as error:
        raise _unsupported(f"config.json of the model cannot be read: {_first(error)}") from None
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise _unsupported(f"models of type {config.model_type} do not go on with a text, as what is quantized has to")
    if not any(model.glob("*.safetensors")):
        raise _unsupported("the model has no weights: there is no file in safetensors")
    tokenizer = read_tokenizer(model)
    needs = ["spec.calibration"] if run.calibration is not None else []
    if run.evaluation is not None and run.evaluation.data is not None:
        needs.append("spec.evaluation.data")
    if tokenizer.chat_template is None and needs:
        raise _unsupported(f"the tokenizer has no chat template, which writes the records of {' and '.join(needs)}: add "
                           "chat_template.jinja to the model, or do without them")  # fmt: skip
    return tokenizer


def load(model: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The model of a folder, to be looked at and changed. Raises RunFailed, UnsupportedModel, where that cannot be."""
    try:
        return AutoModelForCausalLM.from_pretrained(
            model, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype
        ).eval()
    except (OSError, ValueError, KeyError) as error:
        raise _unsupported(f"the model cannot be loaded: {_first(error)}") from None


def _first(error: Exception) -> str:
    """What is wrong; the lines after it are how to install another version."""
    return str(error).strip().partition("\n")[0]


def _unsupported(words: str) -> RunFailed:
    return RunFailed(Reason.UNSUPPORTED_MODEL, words)

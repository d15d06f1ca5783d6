"""QLoRA: LoRA beside a base that is held in four bits (Dettmers et al. 2023, arXiv 2305.14314).

The updates are learned against the rounded weights and merged into the full-precision ones: merging into four bits would
round them away. bitsandbytes does this on CPUs, too.
"""

from pathlib import Path
from typing import Any

from slm_trainer.recipes import lora
from slmkit.run import RunFailed
from slmops.contract import Qlora, Reason, TrainRun


def prepare(model: Any, folder: Path | None, run: TrainRun) -> Any:
    """The base, loaded again in four bits, with updates that do nothing yet."""
    if folder is None:
        raise RunFailed(Reason.INVALID_CONFIGURATION, "method QLoRA needs a base: a new model has nothing to quantize")
    return lora.with_lora(load_in_4bit(folder, run.qlora, run.hyperparameters.precision), run.lora)


def load_in_4bit(folder: Path, wanted: Qlora, precision: str = "FP32") -> Any:
    """A model whose linear layers hold four-bit weights. Raises RunFailed where it has none that can."""
    import torch
    from bitsandbytes.nn import Linear4bit
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from slm_trainer.model import attention
    from slm_trainer.precision import FORMATS

    compute = FORMATS.get(precision, torch.float32) if torch.cuda.is_available() else torch.float32
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=wanted.quant_type.lower(),
        bnb_4bit_use_double_quant=wanted.double_quant, bnb_4bit_compute_dtype=compute,
    )  # fmt: skip
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32,
            attn_implementation=attention(), quantization_config=config,
            device_map={"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"},
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise RunFailed(Reason.UNSUPPORTED_MODEL, f"the model cannot be loaded in four bits: {error}") from None
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            # On CPUs with AVX512-BF16 a measurement between two steps would turn the weights for a kernel that answers
            # faster and passes no gradient back: all that is learned after it would be wrong.
            layer.support_avx512bf16_for_cpu = False
    return model


def finish(model: Any, folder: Path | None, work: Path) -> tuple[Any, dict[str, Path]]:
    """The updates added to the full-precision weights, and the updates by themselves."""
    from peft import PeftModel

    from slm_trainer.model import load_model

    assert folder is not None
    adapter = lora.save_adapter(model, work / "adapter")
    return PeftModel.from_pretrained(load_model(folder), work / "adapter").merge_and_unload(), adapter

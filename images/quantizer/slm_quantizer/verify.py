"""Does the converted model answer like the original? Compared number by number, in the runtime that will serve it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from slm_quantizer.likeness import enough, likeness
from slmkit.run import RunFailed
from slmops.contract import Reason


def verify(original: Path, converted: Path, precision: str, prompts: Sequence[str]) -> float:
    """Compare on these prompts. Returns the mean similarity; raises RunFailed where it is too low."""
    tokenizer = AutoTokenizer.from_pretrained(original, local_files_only=True, trust_remote_code=False)
    torch_model = AutoModelForCausalLM.from_pretrained(
        original, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    ).eval()
    try:
        model = og.Model(str(converted))
        ours = og.Tokenizer(model)
    except Exception as error:
        raise RunFailed(Reason.VERIFICATION_FAILED, f"the runtime cannot load the converted model: {error}") from None
    found = []
    for prompt in prompts:
        expected = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        tokens = [int(token) for token in ours.encode(prompt)]
        if tokens != expected:
            raise RunFailed(Reason.VERIFICATION_FAILED, f"the runtime's tokenizer cuts {prompt[:40]!r} in another way: "
                            f"{tokens[:8]} instead of {expected[:8]}")  # fmt: skip
        read_back = ours.decode(np.array(tokens, dtype=np.int32))  # leaves out special tokens, always
        if read_back != tokenizer.decode(expected, skip_special_tokens=True):
            raise RunFailed(Reason.VERIFICATION_FAILED, f"tokens of {prompt[:40]!r} are not read back as the same text")
        with torch.inference_mode():
            wanted = torch_model(torch.tensor([expected])).logits[0, -1].numpy()
        found.append(likeness(wanted, next_logits(model, tokens), prompt))
    return enough(found, precision)


def next_logits(model: Any, tokens: Sequence[int]) -> NDArray[np.float32]:
    """Logits of the token after these: (vocabulary,)."""
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=len(tokens) + 8, batch_size=1, do_sample=False)
    generator = og.Generator(model, parameters)
    generator.append_tokens(np.array(tokens, dtype=np.int32))
    logits = np.asarray(generator.get_logits(), dtype=np.float32)
    return logits.reshape(-1, logits.shape[-1])[-1]

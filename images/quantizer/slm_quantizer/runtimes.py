"""Runtimes that a converted model is tried in: each takes a prompt and says what comes next."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from slm_quantizer.genai import loaded
from slm_trainer.encoding import ends

ACTIVE = "adapter"


@dataclass(frozen=True)
class Said:
    """What a model makes of a prompt."""

    tokens: list[int]
    """The prompt, as the runtime's own tokenizer cuts it."""
    read_back: str
    """Those tokens as text, without special ones."""
    logits: NDArray[np.float32]
    """Of the token after the prompt: (vocabulary,)."""
    greedy: list[int]
    """The likeliest tokens after the prompt, one after the other. Runtimes differ in whether a token that ends the answer
    is among them."""


class Runtime(Protocol):
    """A loaded model."""

    def say(self, prompts: Sequence[str], limit: int) -> list[Said]:
        """What it makes of each prompt; ``limit`` tokens are generated, fewer where it ends its answer."""


class GenAI:
    """ONNX Runtime GenAI, in the version that the edge server has."""

    def __init__(self, folder: Path, adapter: Path | None = None) -> None:
        import onnxruntime_genai as og

        self._og = og
        self._model = loaded(og, folder)
        self._tokenizer = og.Tokenizer(self._model)
        self._adapters = og.Adapters(self._model)
        self._active = adapter is not None
        if adapter is not None:
            self._adapters.load(str(adapter), ACTIVE)

    def say(self, prompts: Sequence[str], limit: int) -> list[Said]:
        """Token by token, as the edge server does."""
        return [self._say(prompt, limit) for prompt in prompts]

    def _say(self, prompt: str, limit: int) -> Said:
        tokens = [int(token) for token in self._tokenizer.encode(prompt)]
        parameters = self._og.GeneratorParams(self._model)
        parameters.set_search_options(
            max_length=len(tokens) + limit, batch_size=1, do_sample=False, repetition_penalty=1.0
        )
        generator = self._og.Generator(self._model, parameters)
        if self._active:
            generator.set_active_adapter(self._adapters, ACTIVE)
        generator.append_tokens(np.array(tokens, dtype=np.int32))
        logits = np.array(generator.get_logits(), dtype=np.float32)
        while not generator.is_done():
            generator.generate_next_token()
        made = [int(token) for token in generator.get_sequence(0)[len(tokens) :]]
        read_back = self._tokenizer.decode(np.array(tokens, dtype=np.int32))
        return Said(tokens, read_back, logits.reshape(-1, logits.shape[-1])[-1], made)


class Torch:
    """transformers on PyTorch, computing in 32 bit: the original, what is saved as Safetensors, and the original with an
    adapter in PEFT's layout."""

    def __init__(self, folder: Path, adapter: Path | None = None) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        ).eval()
        if adapter is not None:
            from peft import PeftModel

            self.model = PeftModel.from_pretrained(self.model, adapter).eval()
        self.ends = ends(self.model, self.tokenizer)

    def say(self, prompts: Sequence[str], limit: int) -> list[Said]:
        """One prompt after the other."""
        return [self._say(prompt, limit) for prompt in prompts]

    def fits(self, prompt: str, limit: int) -> bool:
        """Whether the model can read the prompt and so many tokens after it."""
        longest = getattr(self.model.config, "max_position_embeddings", None)
        return longest is None or len(self.tokenizer(prompt, add_special_tokens=False)["input_ids"]) + limit <= longest

    def next_logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits of the token after these."""
        with torch.inference_mode():
            found: NDArray[np.float32] = self.model(torch.tensor([list(tokens)])).logits[0, -1].float().numpy()
        return found

    def _say(self, prompt: str, limit: int) -> Said:
        tokens = list(self.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        read_back = self.tokenizer.decode(tokens, skip_special_tokens=True)
        given = torch.tensor([tokens])
        with torch.inference_mode():
            made = self.model.generate(
                input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=limit, do_sample=False,
                repetition_penalty=1.0, pad_token_id=self.tokenizer.pad_token_id, eos_token_id=self.ends,
            )  # fmt: skip
        return Said(tokens, read_back, self.next_logits(tokens), made[0, len(tokens) :].tolist())

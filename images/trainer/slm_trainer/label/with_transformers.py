"""Weights run by transformers, on a GPU where there is one, else on the CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from slm_trainer.encoding import ends, name_ends, until
from slm_trainer.label.answers import Answer, Question, Trouble, stopped
from slm_trainer.model import load_model, load_tokenizer
from slmops.contract import Sampling


class TransformersEngine:
    """``model.generate`` over padded batches."""

    batch = 32

    def __init__(self, folder: Path, sampling: Sampling) -> None:
        self._sampling = sampling
        self._tokenizer, self._model = load_tokenizer(folder), load_model(folder).eval()
        name_ends(self._model, self._tokenizer)
        self._ends = ends(self._model, self._tokenizer)
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._context = getattr(self._model.config, "max_position_embeddings", None) or 1 << 60

    def answer(self, questions: Sequence[Question]) -> list[Answer | Trouble]:
        """The answers in the order of the questions. A batch has the seed of its first question."""
        texts = [
            self._tokenizer.apply_chat_template(list(q.messages), tokenize=False, add_generation_prompt=True)
            for q in questions
        ]
        lengths = [len(tokens) for tokens in self._tokenizer(texts, add_special_tokens=False)["input_ids"]]
        fits = [index for index, length in enumerate(lengths) if length < self._context]
        answers: list[Answer | Trouble] = [Trouble.CONTEXT_TOO_LONG] * len(questions)
        if fits:
            torch.manual_seed(questions[fits[0]].seed)
            made = self._generate([texts[index] for index in fits])
            for index, tokens in zip(fits, made, strict=True):
                answers[index] = self._read(tokens, lengths[index])
        return answers

    def _generate(self, texts: list[str]) -> Tensor:
        """New tokens, (batch, length), padded on the right."""
        self._tokenizer.padding_side = "left"
        given = self._tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt").to(
            self._model.device
        )
        start = given["input_ids"].shape[1]
        sampling = self._sampling
        options: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            options = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        if sampling.frequency_penalty or sampling.presence_penalty:
            penalties = Penalties(start, sampling.frequency_penalty, sampling.presence_penalty)
            options["logits_processor"] = LogitsProcessorList([penalties])
        if sampling.stop:
            options |= {"stop_strings": list(sampling.stop), "tokenizer": self._tokenizer}
        with torch.inference_mode():
            made = self._model.generate(
                input_ids=given["input_ids"], attention_mask=given["attention_mask"],
                max_new_tokens=min(sampling.max_tokens, self._context - start),
                pad_token_id=self._tokenizer.pad_token_id, eos_token_id=self._ends, **options,
            )  # fmt: skip
        return made[:, start:]

    def _read(self, tokens: Tensor, prompt: int) -> Answer:
        """An answer ends at the first token that ends one, at a stop text (padding follows then), or at the limit."""
        ids = tokens.tolist()
        end, pad = until(ids, self._ends), self._tokenizer.pad_token_id
        if end is None and pad in ids:
            ids = ids[: ids.index(pad)]
        whole = self._tokenizer.decode(ids[:end], skip_special_tokens=True)
        text = stopped(whole, self._sampling.stop)
        finish = "length" if end is None and text == whole else "stop"
        return Answer(text, prompt, len(ids) if end is None else end + 1, finish)


class Penalties(LogitsProcessor):
    """The penalties of the OpenAI API: of each token's logit, ``frequency`` for each time that it was written so far, and
    ``presence`` once if it was. https://platform.openai.com/docs/api-reference/chat"""

    def __init__(self, start: int, frequency: float, presence: float) -> None:
        self._start, self._frequency, self._presence = start, frequency, presence

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``scores`` (batch, vocabulary) after what ``input_ids`` (batch, length) hold beyond the prompt."""
        written = input_ids[:, self._start :]
        counts = torch.zeros_like(scores).scatter_add_(1, written, torch.ones_like(written, dtype=scores.dtype))
        return scores - self._frequency * counts - self._presence * (counts > 0)

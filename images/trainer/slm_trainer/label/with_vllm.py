"""Weights run by vLLM (https://docs.vllm.ai), which fills a GPU with requests by itself. Needs an image with vLLM."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before vLLM is imported: it reports to its makers otherwise.
os.environ["VLLM_NO_USAGE_STATS"] = "1"
os.environ["DO_NOT_TRACK"] = "1"

from vllm import LLM, SamplingParams

from slm_trainer.encoding import turn_end
from slm_trainer.label.answers import Answer, Question, Trouble
from slmkit.run import RunFailed
from slmkit.sources import check_model_folder
from slmops.contract import Reason, Sampling


class VLLMEngine:
    """``LLM.chat``: the model's own chat template, continuous batching."""

    batch = 512
    """Answers that a killed pod loses at most; large enough to keep a GPU full."""

    def __init__(self, folder: Path, sampling: Sampling) -> None:
        self._sampling = sampling
        check_model_folder(folder)
        try:
            self._llm = LLM(model=str(folder), trust_remote_code=False, load_format="safetensors")
        except (ValueError, KeyError, OSError) as error:
            raise RunFailed(Reason.UNSUPPORTED_MODEL, f"vLLM cannot load the model: {error}") from None
        end = turn_end(self._llm.get_tokenizer())
        self._ends = [] if end is None else [end]
        """Besides what the model's own settings name, which vLLM reads."""

    def answer(self, questions: Sequence[Question]) -> list[Answer | Trouble]:
        """The answers in the order of the questions."""
        try:
            return self._chat(questions)
        except ValueError:  # one prompt that is too long fails all of them
            if len(questions) == 1:
                return [Trouble.CONTEXT_TOO_LONG]
            return [answer for question in questions for answer in self.answer([question])]

    def _chat(self, questions: Sequence[Question]) -> list[Answer | Trouble]:
        made = self._llm.chat(
            [list(question.messages) for question in questions],
            [self._parameters(question) for question in questions],
            use_tqdm=False,
        )
        return [_read(output) for output in made]

    def _parameters(self, question: Question) -> Any:
        sampling = self._sampling
        return SamplingParams(
            temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=sampling.max_tokens,
            stop=list(sampling.stop), frequency_penalty=sampling.frequency_penalty,
            presence_penalty=sampling.presence_penalty, seed=question.seed, stop_token_ids=self._ends,
        )  # fmt: skip


def _read(output: Any) -> Answer:
    """One ``RequestOutput`` with its one ``CompletionOutput``."""
    (made,) = output.outputs
    return Answer(made.text, len(output.prompt_token_ids), len(made.token_ids), made.finish_reason or "stop")

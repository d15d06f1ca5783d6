"""What a model is worth: exact match of greedy answers, time of an answer, bytes of weights, memory of a process.

Every model is measured in a process of its own, so that one model's memory is not counted to another.
"""

import heapq
import json
import random
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from slmkit.apart import measure_apart
from slmkit.data import Example
from slmops.contract import Figures, Reason

TIMED = 30
"""Answers that are timed one by one; accuracy takes all records in batches."""
BATCH = 64


def choose(examples: Iterable[Example], samples: int, seed: int) -> list[Example]:
    """At most ``samples`` records with an answer, in their order; the same ones for the same seed, however many there
    are beside them in memory or on disk."""
    rng = random.Random(seed)  # noqa: S311  (a sample, not a secret)
    numbered = enumerate(example for example in examples if example.completion is not None)
    chosen = heapq.nsmallest(samples, ((rng.random(), number, example) for number, example in numbered))
    return [example for _, _, example in sorted(chosen, key=lambda item: item[1])]


def measure(folder: Path, examples: Sequence[Example], max_new_tokens: int, work: Path) -> Figures:
    """Measure a saved model in a process of its own."""
    records = [[list(example.prompt), example.completion] for example in examples]
    asked = {"folder": str(folder), "limit": max_new_tokens, "examples": records}
    return measure_apart("slm_trainer.evaluate", asked, work, Reason.INTERNAL_ERROR, "the evaluation failed")


def evaluate(model: Any, tokenizer: Any, examples: Sequence[Example], limit: int) -> tuple[float, float]:
    """(exact match, median seconds of one answer), greedy."""
    right = sum(
        answer.strip() == (example.completion or "").strip()
        for begin in range(0, len(examples), BATCH)
        for answer, example in zip(
            generate(model, tokenizer, examples[begin : begin + BATCH], limit),
            examples[begin : begin + BATCH],
            strict=True,
        )
    )
    times = []
    for example in examples[:TIMED]:
        begun = time.perf_counter()
        generate(model, tokenizer, [example], limit)
        times.append(time.perf_counter() - begun)
    return right / len(examples), median(times)


def generate(model: Any, tokenizer: Any, examples: Sequence[Example], limit: int, **sampling: Any) -> list[str]:
    """Answers to a batch, greedy unless told otherwise."""
    import torch

    texts = [
        tokenizer.apply_chat_template(list(e.prompt), tokenize=False, add_generation_prompt=True) for e in examples
    ]
    tokenizer.padding_side = "left"
    given = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        made = model.generate(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"], max_new_tokens=limit,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            **({"do_sample": False} | sampling),
        )  # fmt: skip
    return list(tokenizer.batch_decode(made[:, given["input_ids"].shape[1] :], skip_special_tokens=True))


def _main() -> None:
    from slm_trainer.model import load_model, load_tokenizer

    asked = json.loads(Path(sys.argv[1]).read_bytes())
    folder = Path(asked["folder"])
    tokenizer, model = load_tokenizer(folder), load_model(folder).eval()
    examples = [Example(tuple(prompt), completion) for prompt, completion in asked["examples"]]
    match, seconds = evaluate(model, tokenizer, examples, asked["limit"])
    print(Figures(
        exact_match=round(match, 5), inference_seconds=round(seconds, 6), samples=len(examples),
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        weight_bytes=sum(p.stat().st_size for p in folder.glob("*.safetensors")),
        parameters=sum(p.numel() for p in model.parameters()),
    ).model_dump_json())  # fmt: skip


if __name__ == "__main__":
    _main()

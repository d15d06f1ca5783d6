"""What a model is worth: its greedy answers, the time that they take, the loss of the expected ones, memory of a process.

Every model is measured in a process of its own, so that one model's memory is not counted to another.
"""

import heapq
import random
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slm_trainer.encoding import encode, ends, name_ends, prompt_tokens, until
from slmkit.apart import Look, Seen, finite, measure_apart, peak_memory, tell
from slmkit.data import Example
from slmkit.metrics import Measured, judged
from slmkit.run import Context, RunFailed
from slmops.contract import Evaluation, Metric, Reason

TIMED = 30
"""Answers that are timed one by one; accuracy takes all records in batches."""
BATCH = 64
ENDLESS = 10**9
"""Tokens that a model can read which names no bound."""
PIECE = 1024
"""Tokens of a plain text that are read at a time: logits of all that a model can read may be gigabytes."""
LOOK = Look("slm_trainer.evaluate:look", ("slm_trainer.model",))


def choose(examples: Iterable[Example], samples: int, seed: int) -> list[Example]:
    """At most ``samples`` records with an answer, in their order; the same ones for the same seed, however many there
    are beside them in memory or on disk."""
    rng = random.Random(seed)  # noqa: S311  (a sample, not a secret)
    numbered = enumerate(example for example in examples if example.completion is not None)
    chosen = heapq.nsmallest(samples, ((rng.random(), number, example) for number, example in numbered))
    return [example for _, _, example in sorted(chosen, key=lambda item: item[1])]


def measure(folder: Path, examples: Sequence[Example], wanted: Evaluation, context: Context) -> Measured:
    """Measure a saved model in a process of its own. Each example has an answer. Plain texts answer nothing: of them the
    loss alone is measured."""
    if examples[0].plain:  # so are all: a data set has one format
        wanted = wanted.model_copy(update={"metrics": (Metric.PERPLEXITY,)})
    context.expect(len(examples))
    records = [[list(example.prompt), example.completion] for example in examples]
    asked = {"folder": str(folder), "limit": wanted.max_new_tokens, "metrics": wanted.metrics, "examples": records}
    seen = measure_apart(LOOK, asked, context, Reason.INTERNAL_ERROR, "the evaluation failed")
    return judged(seen, [example.completion or "" for example in examples], wanted)


def answers(model: Any, tokenizer: Any, examples: Sequence[Example], limit: int) -> list[str]:
    """Greedy answers, in batches."""
    said: list[str] = []
    for begin in range(0, len(examples), BATCH):
        said += generate(model, tokenizer, examples[begin : begin + BATCH], limit)
        tell(len(said))
    return said


def times(model: Any, tokenizer: Any, examples: Sequence[Example], limit: int) -> list[float]:
    """Seconds of answers of at most ``limit`` tokens, one by one."""
    found = []
    for example in examples[:TIMED]:
        begun = time.perf_counter()
        answer(model, tokenizer, example, limit)  # its text is on the CPU: the device has finished
        found.append(time.perf_counter() - begun)
    return found


def answer(model: Any, tokenizer: Any, example: Example, limit: int) -> str:
    """The greedy answer to one prompt, by the model's forward passes alone.

    ``generate`` of transformers looks to each token for whatever it can do besides: on one core that is a sixth of the time
    of a model of 400,000 parameters, and a twentieth of one of 12 million.
    """
    import torch

    read = torch.tensor([prompt_tokens(tokenizer, example)], device=model.device)
    stops, cache, said = set(ends(model, tokenizer)), None, list[int]()
    with torch.inference_mode():
        while len(said) < limit:
            seen = model(input_ids=read, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, read = seen.past_key_values, seen.logits[:, -1].argmax(-1, keepdim=True)
            said.append(int(read))
            if said[-1] in stops:
                break
    return str(tokenizer.decode(said[: until(said, stops)], skip_special_tokens=True))


def losses(model: Any, tokenizer: Any, examples: Sequence[Example]) -> tuple[list[float], list[int]]:
    """(nats, tokens) of each expected answer. Both zero where the record is longer than the model can read.

    One record at a time, and logits of the answer alone: those of a batch over a large vocabulary are gigabytes.
    """
    import torch
    import torch.nn.functional as F  # noqa: N812  (PyTorch's own name for it)

    nats, tokens = [], []
    longest = getattr(model.config, "max_position_embeddings", None) or ENDLESS
    for example in examples:
        found = counted = 0.0
        for record in encode(tokenizer, [example], min(longest, PIECE) if example.plain else longest)[0]:
            start = max(record.start, 1)
            read = torch.tensor([list(record.tokens)], device=model.device)
            aims = read[0, start:]
            with torch.inference_mode():
                logits = model(input_ids=read, logits_to_keep=len(aims) + 1).logits[0, :-1].float()
            found += float(F.cross_entropy(logits, aims, reduction="sum"))
            counted += len(aims)
        nats.append(finite(found))
        tokens.append(int(counted))
    return nats, tokens


def generate(model: Any, tokenizer: Any, examples: Sequence[Example], limit: int, **sampling: Any) -> list[str]:
    """Answers to a batch, greedy unless told otherwise."""
    import torch

    texts = [
        tokenizer.apply_chat_template(list(e.prompt), tokenize=False, add_generation_prompt=True) for e in examples
    ]
    tokenizer.padding_side = "left"
    given = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt").to(model.device)
    stops = ends(model, tokenizer)
    with torch.inference_mode():
        made = model.generate(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"], max_new_tokens=limit,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=stops,
            **({"do_sample": False} | sampling),
        )  # fmt: skip
    rows = made[:, given["input_ids"].shape[1] :].tolist()
    # The end is no part of the answer, also where it is a token that would be read back as text.
    return list(tokenizer.batch_decode([row[: until(row, stops)] for row in rows], skip_special_tokens=True))


def look(asked: Mapping[str, Any]) -> Seen:
    """In the process that measures: what the model in a folder does."""
    import torch

    from slm_trainer.model import load_model, load_tokenizer

    folder, limit, metrics = Path(asked["folder"]), asked["limit"], asked["metrics"]
    graphics = torch.cuda.is_available()
    tokenizer, model = load_tokenizer(folder), load_model(folder).to("cuda" if graphics else "cpu").eval()
    name_ends(model, tokenizer)
    examples = [Example(tuple(prompt), completion) for prompt, completion in asked["examples"]]
    said = answers(model, tokenizer, [example for example in examples if not example.plain], limit)
    whole = times(model, tokenizer, examples, limit) if Metric.INFERENCE_TIME in metrics else []
    first = times(model, tokenizer, examples, 1) if Metric.TIME_TO_FIRST_TOKEN in metrics else []
    peak = peak_memory() + (torch.cuda.max_memory_allocated() if graphics else 0)  # of answering alone
    try:
        nats, tokens = losses(model, tokenizer, examples) if Metric.PERPLEXITY in metrics else ([], [])
    except RunFailed as failed:  # a teacher whose chat template writes an answer in another way than it begins one
        print(f"no perplexity: {failed.message}", file=sys.stderr)
        nats, tokens = [], []
    return Seen(
        answers=said, seconds=whole, first_token_seconds=first, nats=nats, tokens=tokens, peak_memory_bytes=peak,
        weight_bytes=sum(p.stat().st_size for p in folder.glob("*.safetensors")),
        parameters=sum(p.numel() for p in model.parameters()),
    )  # fmt: skip

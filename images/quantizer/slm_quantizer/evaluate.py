"""What a variant is worth against the unquantized model: both in ONNX Runtime, each in a process of its own."""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slm_quantizer.genai import loaded
from slm_quantizer.pack import ends
from slmkit.apart import Look, Seen, finite, measure_apart, peak_memory, tell
from slmkit.data import Example
from slmkit.metrics import Measured, judged
from slmkit.run import Context
from slmops.contract import Evaluation, Metric, Reason

LOOK = Look("slm_quantizer.evaluate:look", ("onnxruntime_genai",))


def measure(
    folder: Path,
    pairs: Sequence[tuple[str, str | None]],
    examples: Sequence[Example],
    wanted: Evaluation,
    context: Context,
) -> Measured:
    """Measure a converted model in a process of its own. ``pairs``: the texts of the examples, which have an answer."""
    context.expect(len(examples))
    asked = {"folder": str(folder), "limit": wanted.max_new_tokens, "metrics": wanted.metrics, "pairs": pairs}
    trouble = "the runtime cannot answer with this model"
    seen = measure_apart(LOOK, asked, context, Reason.VERIFICATION_FAILED, trouble)
    return judged(seen, [example.completion or "" for example in examples], wanted)


def context_length(folder: Path) -> int:
    """Tokens, prompt and answer together, that the runtime accepts: it fails when more are asked for."""
    return int(json.loads((folder / "genai_config.json").read_bytes())["model"]["context_length"])


def answer(
    og: Any, model: Any, tokenizer: Any, prompt: str, limit: int, longest: int, ends: Collection[int] = ()
) -> tuple[str, float | None, float | None]:
    """(greedy answer, seconds to its first token, seconds in all). No answer and no times to a prompt that leaves no room
    for one in ``longest`` tokens: the edge runtime refuses it, too. ``ends``: tokens that end an answer and are no part
    of it."""
    begun = time.perf_counter()
    tokens = tokenizer.encode(prompt)
    if len(tokens) >= longest:
        return "", None, None
    generator = _generator(og, model, min(len(tokens) + limit, longest))
    generator.append_tokens(tokens)
    first = 0.0
    while not generator.is_done():
        generator.generate_next_token()
        first = first or time.perf_counter() - begun
    said = generator.get_sequence(0)[len(tokens) :]
    text = tokenizer.decode(said[:-1] if len(said) and int(said[-1]) in ends else said)
    return text, first, time.perf_counter() - begun


def loss(og: Any, model: Any, tokenizer: Any, prompt: str, expected: str | None, longest: int) -> tuple[float, int]:
    """(nats, tokens) of an expected answer, which is given token by token: the runtime shows the last logits alone. Both
    zero where the chat template writes none, or the record is longer than ``longest`` tokens, as in the trainer."""
    if expected is None:
        return 0.0, 0
    head, tail = tokenizer.encode(prompt), tokenizer.encode(expected)
    if len(head) + len(tail) > longest:
        return 0.0, 0
    generator = _generator(og, model, len(head) + len(tail))
    nats = 0.0
    given = head
    for token in tail:
        generator.append_tokens(given)
        logits = np.asarray(generator.get_logits(), dtype=np.float64)
        logits = logits.reshape(-1, logits.shape[-1])[-1]
        top = logits.max()
        nats += float(top + np.log(np.exp(logits - top).sum()) - logits[token])
        given = np.array([token], dtype=np.int32)
    return finite(nats), len(tail)


def _generator(og: Any, model: Any, longest: int) -> Any:
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=longest, batch_size=1, do_sample=False, repetition_penalty=1.0)
    return og.Generator(model, parameters)


def look(asked: Mapping[str, Any]) -> Seen:
    """In the process that measures: what the model in a folder does."""
    import onnxruntime_genai as og

    folder, pairs, metrics = Path(asked["folder"]), asked["pairs"], asked["metrics"]
    model = loaded(og, folder)
    tokenizer = og.Tokenizer(model)
    longest, stops = context_length(folder), ends(folder)
    said = []
    for prompt, _ in pairs:
        said.append(answer(og, model, tokenizer, prompt, asked["limit"], longest, stops))
        tell(len(said))
    peak = peak_memory()  # of answering alone
    losses = [loss(og, model, tokenizer, *pair, longest) for pair in pairs] if Metric.PERPLEXITY in metrics else []
    return Seen(
        answers=[text for text, _, _ in said],
        seconds=[whole for _, _, whole in said if whole] if Metric.INFERENCE_TIME in metrics else [],
        first_token_seconds=[first for _, first, _ in said if first] if Metric.TIME_TO_FIRST_TOKEN in metrics else [],
        nats=[nats for nats, _ in losses],
        tokens=[count for _, count in losses],
        peak_memory_bytes=peak,
        weight_bytes=sum(path.stat().st_size for path in folder.glob("model.onnx*")),
    )

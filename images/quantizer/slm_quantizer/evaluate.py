"""What a variant is worth against the unquantized model: both in ONNX Runtime, each in a process of its own."""

import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from slmkit.apart import measure_apart
from slmkit.data import Example
from slmops.contract import Figures, Reason


def measure(folder: Path, prompts: Sequence[str], examples: Sequence[Example], limit: int, work: Path) -> Figures:
    """Exact match, time and memory of greedy answers."""
    answers = [example.completion for example in examples]
    asked = {"folder": str(folder), "limit": limit, "prompts": list(prompts), "answers": answers}
    trouble = "the runtime cannot answer with this model"
    return measure_apart("slm_quantizer.evaluate", asked, work, Reason.VERIFICATION_FAILED, trouble)


def _main() -> None:
    import onnxruntime_genai as og

    asked = json.loads(Path(sys.argv[1]).read_bytes())
    folder = Path(asked["folder"])
    model = og.Model(str(folder))
    tokenizer = og.Tokenizer(model)
    right, times = 0, []
    for prompt, answer in zip(asked["prompts"], asked["answers"], strict=True):
        begun = time.perf_counter()
        tokens = tokenizer.encode(prompt)
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=len(tokens) + asked["limit"], batch_size=1, do_sample=False)
        generator = og.Generator(model, parameters)
        generator.append_tokens(tokens)
        while not generator.is_done():
            generator.generate_next_token()
        text = tokenizer.decode(generator.get_sequence(0)[len(tokens) :])
        times.append(time.perf_counter() - begun)
        right += text.strip() == answer.strip()
    print(Figures(
        exact_match=round(right / len(times), 5), samples=len(times), inference_seconds=round(median(times), 6),
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        weight_bytes=sum(path.stat().st_size for path in folder.glob("model.onnx*")),
    ).model_dump_json())  # fmt: skip


if __name__ == "__main__":
    _main()

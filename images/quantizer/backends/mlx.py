"""MLX: mlx-lm converts, rounds and answers; on Linux it computes on the CPU.

``python mlx.py ASKED.json``; what is asked and answered is told in slm_quantizer/external.py. Runs in a Python environment
of its own, because mlx-lm pins what it needs by itself.
"""

import json
import resource
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder: the file has the name of the package that it imports
limit = resource.setrlimit


def within(kind: int, wanted: tuple[int, int]) -> None:
    """mlx-lm wants 2048 open files as soon as it is imported, and would end where it may not have them. It opens a few."""
    with suppress(ValueError):
        limit(kind, wanted)


resource.setrlimit = within

import mlx.core as mx
from mlx_lm import convert, load
from mlx_lm.generate import generate_step
from mlx_lm.sample_utils import make_sampler

BITS = {"INT4": 4, "INT8": 8}
DTYPES = {"FP16": "float16", "FP32": "float32", "INT4": "float16", "INT8": "float16"}
SIZES = (32, 64, 128)


def build(asked: dict[str, Any]) -> dict[str, Any]:
    """Convert; MLX rounds affinely, with a scale and an offset for each block."""
    precision, block = asked["precision"], asked["block_size"]
    if block not in SIZES:
        raise SystemExit(f"MLX has blocks of {', '.join(map(str, SIZES))} weights, not of {block}")
    out = Path(asked["out"])
    out.rmdir()  # mlx-lm makes the folder, and refuses one that is there
    with tempfile.TemporaryDirectory() as folder:
        model = readable(Path(asked["model"]), Path(folder))
        convert(str(model), str(out), quantize=precision in BITS, q_bits=BITS.get(precision), q_group_size=block,
                dtype=DTYPES[precision])  # fmt: skip
    (out / "README.md").unlink(missing_ok=True)  # names the folder of this run
    return {}


def readable(model: Path, view: Path) -> Path:
    """The model in a folder of links, with the places of tokens where mlx-lm looks for them: transformers 5 writes them as
    ``rope_parameters``, and mlx-lm would take defaults that are another model's."""
    for path in model.iterdir():
        (view / path.name).symlink_to(path)
    config = json.loads((model / "config.json").read_bytes())
    places = config.get("rope_parameters") or {}
    if "rope_theta" in places:
        config.setdefault("rope_theta", places["rope_theta"])
        if places.get("rope_type", "default") != "default":
            config.setdefault("rope_scaling", {key: value for key, value in places.items() if key != "rope_theta"})
    (view / "config.json").unlink()
    (view / "config.json").write_text(json.dumps(config))
    return view


def say(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Greedy answers."""
    model, tokenizer = load(asked["model"])
    ends = set(tokenizer.eos_token_ids)
    said = []
    for prompt in asked["prompts"]:
        tokens = tokenizer.encode(prompt, add_special_tokens=False)
        logits = model(mx.array([tokens]))[0, -1].astype(mx.float32)
        greedy: list[int] = []
        for token, _ in generate_step(mx.array(tokens), model, max_tokens=asked["limit"], sampler=make_sampler(0.0)):
            greedy.append(int(token))
            if int(token) in ends:
                break
        said.append({
            "tokens": tokens, "read_back": tokenizer.decode(tokens, skip_special_tokens=True),
            "logits": logits.tolist(), "greedy": greedy,
        })  # fmt: skip
    return said


if __name__ == "__main__":
    wanted = json.loads(Path(sys.argv[1]).read_bytes())
    Path(wanted["answer"]).write_text(json.dumps({"build": build, "say": say}[wanted["do"]](wanted)))

"""The model folder as an image's layers: weights apart from the small files, so that a changed setting moves no weights."""

import json
from pathlib import Path

from slmkit.layers import Compression, Layer
from slmops.contract import QuantizeRun

WEIGHTS = ("model.onnx", "model.onnx.data")
LEFT_OUT = {"model_config.json"}
"""Olive's own record of the build: it names folders of the pod."""


def finish(folder: Path, run: QuantizeRun) -> None:
    """Add what servers look for: generation defaults, and Foundry Local's name file."""
    path = folder / "genai_config.json"
    config = json.loads(path.read_text())
    search, wanted = config.setdefault("search", {}), run.generation
    context = int(config.get("model", {}).get("context_length") or wanted.max_length)
    search |= {
        "max_length": min(wanted.max_length, context), "temperature": wanted.temperature, "top_p": wanted.top_p,
        "repetition_penalty": wanted.repetition_penalty, "do_sample": wanted.temperature > 0,
    }  # fmt: skip
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    name = {"Name": f"{run.name}-{run.variant}:1"}
    (folder / "inference_model.json").write_text(json.dumps(name, indent=2) + "\n")


def layers(folder: Path, name: str, compression: Compression = "None") -> list[Layer]:
    """The image's layers; files lie at ``/models/<name>``."""
    files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in LEFT_OUT}
    place = f"models/{name}/"
    weights = {place + n: p for n, p in files.items() if n in WEIGHTS}
    small = {place + n: p for n, p in files.items() if n not in WEIGHTS}
    return [Layer(weights, "weights", compression), Layer(small, "settings", compression)]

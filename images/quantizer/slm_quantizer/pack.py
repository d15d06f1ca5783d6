"""The model folder as an image's layers: weights apart from the small files, so that a changed setting moves no weights,
and each adapter by itself, so that a changed one moves no other."""

import json
from pathlib import Path
from typing import Any

from slmkit.layers import Compression, Layer
from slmkit.safety.adapters import LIST, SUFFIX
from slmops.contract import QuantizeRun

WEIGHTS = (".onnx", ".onnx.data", ".safetensors", ".gguf", ".bin")
"""How the names of files with weights end."""
LEFT_OUT = {"model_config.json"}
"""Olive's own record of the build: it names folders of the pod."""
GENAI = "genai_config.json"
ADAPTER = "adapter."
"""How the title of an adapter's layer begins; its name follows."""


def finish(folder: Path, run: QuantizeRun) -> None:
    """Add what servers of ONNX look for: generation defaults, and Foundry Local's name file. Other formats keep the model's
    own ``generation_config.json``, with the same defaults."""
    if run.format != "ONNX":
        _defaults(folder / "generation_config.json", run)
        return
    path = folder / GENAI
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


def ends(folder: Path) -> list[int]:
    """Tokens that whoever serves it stops at."""
    named = _ending(folder)[1].get("eos_token_id")
    return named if isinstance(named, list) else [] if named is None else [named]


def name_end(folder: Path, token: int | None) -> None:
    """Add the token that ends an answer to those that whoever serves it stops at, where it is not among them."""
    known = ends(folder)
    if token is not None and token not in known:
        path, config = _ending(folder)
        config["eos_token_id"] = [*known, token] if known else token
        whole = json.loads(path.read_text()) if path.is_file() else {}
        whole |= {"model": whole["model"] | config} if path.name == GENAI else config
        path.write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n")


def _ending(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file that names the ends of answers, and that part of it."""
    if (folder / GENAI).is_file():
        return folder / GENAI, dict(json.loads((folder / GENAI).read_text())["model"])
    path = folder / "generation_config.json"
    return path, dict(json.loads(path.read_text())) if path.is_file() else {}


def _defaults(path: Path, run: QuantizeRun) -> None:
    config = json.loads(path.read_text()) if path.is_file() else {}
    wanted = run.generation
    config |= {
        "repetition_penalty": wanted.repetition_penalty,
        "do_sample": wanted.temperature > 0, "temperature": wanted.temperature or 1.0, "top_p": wanted.top_p,
    }  # fmt: skip
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def weight_bytes(folder: Path) -> int:
    """Bytes of the files with weights."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.name.endswith(WEIGHTS))


def layers(folder: Path, name: str, compression: Compression = "None") -> list[Layer]:
    """The image's layers; files lie at ``/models/<name>``. Beside adapters the list of them, which has their digests,
    and the graph, which has their places, are layers by themselves: so weights and settings stay what they are."""
    parts: dict[str, dict[str, Path]] = {"weights": {}, "settings": {}}
    adapted = (folder / LIST).is_file()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in LEFT_OUT:
            title = _layer(path) if adapted else _plain_layer(path)
            parts.setdefault(title, {})[f"models/{name}/{path.relative_to(folder)}"] = path
    return [Layer(files, title, compression) for title, files in parts.items()]


def _layer(path: Path) -> str:
    if path.name == LIST:
        return "adapters"
    if path.name.endswith(SUFFIX):
        return f"{ADAPTER}{path.stem}"
    return "graph" if path.name.endswith(".onnx") else _plain_layer(path)


def _plain_layer(path: Path) -> str:
    return "weights" if path.name.endswith(WEIGHTS) else "settings"

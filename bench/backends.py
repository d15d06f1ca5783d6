"""``python -m bench backends``: formats whose tool chains are installed on demand, each made and compared with PyTorch.

The quantizer's image is built with all of them, llama.cpp of Debian testing is put into a container of it, and
``trying.py`` runs there: what cannot be made, or answers otherwise than the original, has missed its target.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import llama
from bench.figures import Figure, mb
from bench.inside import container, lines_in
from bench.place import CLUSTER
from demo.steps import ROOT

FORMATS = ("OpenVINO", "MLX", "GGUF")
LEAST = {"FP32": 0.9999, "FP16": 0.999, "INT8": 0.99, "INT4": 0.9}
"""Similarity that the quantizer itself asks for (slm_quantizer/likeness.py)."""
SENTENCEPIECE = "/opt/backends/gguf/lib/python3.13/site-packages"
"""Where the model's tokenizer comes from."""
PATH = ("/repo/operator", "/repo/images/kit", "/repo/images/trainer", "/repo/images/quantizer", "/repo", SENTENCEPIECE)


def run() -> list[Figure]:
    """Build the image, and try each form in it."""
    with container(_image(), bool(CLUSTER.plain_http)) as made:
        llama.add(made)
        return judge(lines_in(made, "bench/trying.py", "/tmp/trying", *FORMATS, path=PATH))


def judge(said: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """A figure for each form."""
    return [
        Figure(f"{line['format']}, {line['precision']} by {line['algorithm']}",
               f"logits at least {LEAST[line['precision']]} similar to PyTorch's", _told(line), "failed" not in line)
        for line in said
    ]  # fmt: skip


def _told(line: Mapping[str, Any]) -> str:
    if "failed" in line:
        return str(line["failed"])[:120]
    return f"{line['similarity']:.5f}, {line['greedy']:.0%} of greedy tokens, {mb(line['weights'])}"


def _image() -> str:
    """The quantizer with the tool chains."""
    plain = ["--plain-http"] if CLUSTER.plain_http else []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "images.json")
        wanted = ["--backends", *(name.lower() for name in FORMATS)]
        command = [sys.executable, str(ROOT / "images" / "build.py"), "quantizer", *wanted, *plain]
        subprocess.run([*command, "--registry", CLUSTER.registry, "--output", str(file)], check=True, stdout=sys.stderr)
        return str(json.loads(file.read_text())["quantizer"])

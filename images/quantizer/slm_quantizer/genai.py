"""ONNX Runtime GenAI, as far as all who load a model with it do the same."""

import json
from pathlib import Path
from typing import Any

from slmkit.cores import runtime_threads


def loaded(og: Any, folder: Path) -> Any:
    """A model that keeps to the container's cores. ``og``: the library, which takes its time to import."""
    config = og.Config(str(folder))
    if threads := runtime_threads(json.loads((folder / "genai_config.json").read_bytes())):
        config.overlay(json.dumps(threads))
    return og.Model(config)

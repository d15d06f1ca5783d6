"""Records on the volume of a claim, and data of a run that name them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def data(name: str, format: str = "PromptCompletion") -> dict[str, Any]:
    """What a run is told of a file of the volume."""
    return {"source": {"uri": "pvc://claim/"}, "format": format, "path": f"{name}.jsonl"}


def write(volume: Path, name: str, *records: Mapping[str, Any]) -> dict[str, Any]:
    """A file of these records."""
    (volume / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return data(name)


def give(volume: Path, name: str, *pairs: tuple[str, str | None]) -> dict[str, Any]:
    """A file of these prompts and answers."""
    return write(volume, name, *({"prompt": prompt, "completion": answer} for prompt, answer in pairs))

"""``python -m bench.pushing copy|push|prepare|nothing FOLDER [REGISTRY]``: copies the files of a model and its adapters and
counts their SHA-256, publishes them as an image, or only makes the repository, and says what it took. A process of its
own, started by ``bench.image``."""

import hashlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from slm_quantizer.pack import layers
from slmkit.layers import Layer
from slmkit.registry import Registry
from slmops import contract
from slmops.contract import DATASET_TYPE, Sink

NAME = "bench"
REPOSITORY = f"slm/{NAME}"
MODEL, ADAPTERS = "model", "adapters"
"""Where its files lie, and where those of which each is a layer."""


def copy(folder: Path) -> str:
    """The files once more on the same disk, and their digests."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as other:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            shutil.copyfile(path, Path(other, path.name))
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")
    return ""


def push(folder: Path, host: str) -> str:
    """The model as the quantizer packs it, and a layer for each adapter. Its address."""
    registry = Registry(contract.Registry(plain_http=(host,)))
    parts = layers(folder / MODEL, NAME)
    for path in sorted((folder / ADAPTERS).iterdir()):
        parts.append(Layer({f"adapters/{path.stem}/{path.name}": path}, path.stem))
    sink = Sink(repository=f"{host}/{REPOSITORY}")
    made = registry.push_image(sink, parts, {}, architecture="amd64")
    registry.tag(sink, made, "latest")
    return made.reference


def prepare(host: str) -> str:
    """The repository, with next to nothing in it. Its address."""
    registry = Registry(contract.Registry(plain_http=(host,)))
    return registry.push_artifact(Sink(repository=f"{host}/{REPOSITORY}"), {}, DATASET_TYPE, {}).reference


def peak() -> int:
    """The most resident memory of this program, in bytes. Not getrusage: that counts whoever started it, too."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024


def main(what: str, folder: Path, host: str = "") -> dict[str, object]:
    """Do it."""
    begun, spent = time.monotonic(), time.process_time()
    match what:
        case "copy":
            said = copy(folder)
        case "push":
            said = push(folder, host)
        case "prepare":
            said = prepare(host)
        case _:
            said = ""
    took = {"seconds": time.monotonic() - begun, "processor": time.process_time() - spent}
    return {"said": said, "peak": peak(), **took}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])))

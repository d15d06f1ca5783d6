"""``genai_config.json``, by which ONNX Runtime GenAI is told what to load: files of the folder and nothing else, no
libraries, and no setting of the runtime that reads, writes or runs something.

Names as in its ``src/config.cpp``. What it does not know as a session's option it hands on to ONNX Runtime, which has
options that name files; so those that may be there are listed.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from slmkit.run import RunFailed
from slmkit.safety.onnx.beside import NAME, inside
from slmkit.safety.onnx.wire import MalformedError
from slmkit.safety.text import read_object, unsafe, walk
from slmops.contract import Reason

NEEDED = "genai_config.json"
SUFFIXES = {".onnx", ".onnx_adapter", ".json"}
"""Of files that it names. A ``.ort`` holds a model, too, in a format that nobody has looked at."""
SESSION = {
    "log_id", "log_severity_level", "log_verbosity_level", "intra_op_num_threads", "inter_op_num_threads",
    "enable_cpu_mem_arena", "enable_mem_pattern", "graph_optimization_level", "provider_options", "use_env_allocators",
    "disable_cpu_ep_fallback", "session.intra_op.allow_spinning", "session.inter_op.allow_spinning",
    "session.disable_prepacking", "session.use_env_allocators", "session.set_denormal_as_zero",
    "session.use_device_allocator_for_initializers", "optimization.disable_specified_optimizers",
}  # fmt: skip
PLACES = re.compile(r"(^|[_.])(dir|directory|path|file|folder|lib|library)s?($|[_.])|librar|profiling", re.IGNORECASE)
"""Settings that name a place, by their names."""
LARGEST = {
    "intra_op_num_threads": 1024, "inter_op_num_threads": 1024, "batch_size": 256, "num_beams": 64,
    "num_return_sequences": 64, "max_length": 1 << 27, "min_length": 1 << 27, "chunk_size": 1 << 20,
    "context_length": 1 << 27, "head_size": 1 << 14, "window_size": 1 << 27,
}  # fmt: skip
"""A runtime sets threads and memory aside for what is written here."""


def check_genai(path: Path) -> None:
    """Raise RunFailed with reason UnsafeSource for what reaches beyond the folder, or beyond all measure."""
    config = read_object(path)
    for _, name, value in walk(config):
        if name.endswith("filename"):
            _check_name(path, name, value)
        elif PLACES.search(name) and value not in (None, False, "", [], {}):
            raise unsafe(path, f"{name[:64]} names a place or a library, which no model may")
        for option in sorted(value) if name == "session_options" and isinstance(value, dict) else ():
            if option not in SESSION and not PLACES.search(option):
                raise unsafe(path, f"{option[:64]} is no option of a session that a model may set")
        if name in ("provider_options", "run_options"):
            _check_options(path, value)
        if isinstance(value, int | float) and not abs(value) <= LARGEST.get(name, 1 << 31):
            raise unsafe(path, f"{name[:64]} is beyond {LARGEST.get(name, 1 << 31)}")


def check_named(folder: Path) -> list[Path]:
    """The models. Raises RunFailed with reason UnsupportedModel unless the files that the configuration names are there, a
    model among them."""
    path = folder / NEEDED
    if not path.is_file():
        raise RunFailed(Reason.UNSUPPORTED_MODEL, f"there is no {NEEDED}")
    names = list(_names(read_object(path)))
    models = [name for name in names if name.endswith(".onnx")]
    if not models:
        raise RunFailed(Reason.UNSUPPORTED_MODEL, f"{NEEDED} names no model")
    for name in names:
        try:
            file = inside(folder, name)
        except MalformedError as error:
            raise RunFailed(Reason.UNSUPPORTED_MODEL, f"{NEEDED}: {error}") from None
        if not file.stat().st_size:
            raise RunFailed(Reason.UNSUPPORTED_MODEL, f"{name} is empty")
    return [folder / name for name in models]


def _names(config: dict[str, Any]) -> Iterator[str]:
    return (value for _, name, value in walk(config) if name.endswith("filename") and value)


def _check_name(path: Path, name: str, value: Any) -> None:
    parts = PurePosixPath(value).parts if isinstance(value, str) else ("",)
    if value in (None, ""):
        return
    if "/".join(parts) != value or not all(map(NAME.fullmatch, parts)):
        raise unsafe(path, f"{name}: {str(value)[:128]!r} is no name of a file in the model's folder")
    if PurePosixPath(value).suffix not in SUFFIXES:
        raise unsafe(path, f"{name}: {value[:128]!r} is none of {', '.join(sorted(SUFFIXES))}")


def _check_options(path: Path, value: Any) -> None:
    """Of what computes (a GPU, for example): its options are texts, and none of them is a place."""
    for _, name, option in walk(value):
        if isinstance(option, str) and re.search(r"[/\\]|\.(so|dll|dylib)\b", option):
            raise unsafe(path, f"option {name[:64]} names a place or a library, which no model may")

"""What a model folder has to pass before anything of it is read: no code, no forged weights, nothing that eats a machine.

Models are files of strangers. Loaders trust them: a pickle runs, ``auto_map`` imports, a header of eight bytes asks for
exabytes, a pattern of twenty characters never ends. ``check_model_folder`` looks at every file first, with limits that
published models keep by far.
"""

import re
from collections.abc import Callable
from pathlib import Path

from slmkit.run import RunFailed
from slmkit.safety.adapters import check_adapters
from slmkit.safety.configs import check_config
from slmkit.safety.genai import check_genai, check_named
from slmkit.safety.onnx import check_onnx
from slmkit.safety.templates import check_templates
from slmkit.safety.tokenizers import check_tekken, check_tokenizer, check_vocabulary
from slmkit.safety.tokens import check_added_tokens, check_special_tokens, check_tokenizer_config
from slmkit.safety.weights import check_index, check_safetensors
from slmops.contract import Reason

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".joblib", ".py", ".pyc", ".so", ".dll",
           ".dylib", ".h5", ".hdf5", ".keras", ".pb", ".nemo", ".mar", ".msgpack"}  # fmt: skip
"""Files whose readers run what is in them, or hold code themselves."""
ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".whl"}
MAGIC = {
    b"PK\x03\x04": "a zip archive, as PyTorch's pickles are", b"PK\x05\x06": "a zip archive",
    b"\x1f\x8b": "packed by gzip", b"\x28\xb5\x2f\xfd": "packed by zstd", b"\xfd7zXZ\x00": "packed by xz",
    b"BZh": "packed by bzip2", b"7z\xbc\xaf\x27\x1c": "a 7z archive", b"Rar!": "a rar archive",
    b"\x7fELF": "a program", b"MZ": "a program", b"\x89HDF": "HDF5, which can carry code", b"\x93NUMPY": "a NumPy array",
    **{bytes((0x80, version)): "a pickle" for version in range(2, 6)},
}  # fmt: skip
"""How files begin, whatever they are called."""
TAR_MAGIC = 257
CHECKS: tuple[tuple[re.Pattern[str], Callable[[Path], None]], ...] = (
    (re.compile(r".*config\.json"), check_config),
    (re.compile(r"genai_config\.json"), check_genai),
    (re.compile(r"tokenizer_config\.json"), check_tokenizer_config),
    (re.compile(r"special_tokens_map\.json"), check_special_tokens),
    (re.compile(r"added_tokens\.json"), check_added_tokens),
    (re.compile(r".*\.index\.json"), check_index),
    (re.compile(r"tokenizer(\..*)?\.json"), check_tokenizer),  # tokenizer.4.0.0.json, too: for a library's version
    (re.compile(r".*tekken.*\.json"), check_tekken),
    (re.compile(r".*\.(model|spm|tiktoken)|tokenizer\.model\..*"), check_vocabulary),
)
"""What is looked at, by name; a file may be several."""
FILES, DEPTH = 10_000, 8
PVC = Path("/mnt/pvc")


def check_model_folder(folder: Path) -> None:
    """Raise RunFailed with reason UnsafeSource (or SourceNotFound for weights that an index names in vain)."""
    files = _files(folder)
    data = {file for path in files if path.suffix.lower() == ".onnx" for file in check_onnx(path)}
    for path in files:
        name = path.relative_to(folder)
        if path.suffix.lower() in PICKLES:
            raise _unsafe(name, "files that can carry code are never loaded; publish the model as safetensors")
        if path.suffix.lower() in ARCHIVES:
            raise _unsafe(name, "archives are not unpacked; publish the files themselves")
        with path.open("rb") as file:
            head = file.read(TAR_MAGIC + 5)
        if path.suffix == ".safetensors":
            check_safetensors(path)  # begins with a length, which may look like anything
        elif path in data:
            continue  # weights and nothing else, which may look like anything, too
        elif what := _disguise(head):
            raise _unsafe(name, f"is {what}, whatever it is called")
    for path in files:
        for belongs, check in CHECKS:
            if belongs.fullmatch(path.name):
                check(path)
    check_templates(files)


def check_runtime_folder(folder: Path) -> None:
    """The same for what ONNX Runtime GenAI is about to load, whose files are all there, too. Raises RunFailed with reason
    UnsafeSource, or UnsupportedModel for a file that the model names in vain."""
    check_model_folder(folder)
    check_adapters(folder, check_named(folder))


def _files(folder: Path) -> list[Path]:
    """The folder's files. Links lead into the folder or a mounted volume, where ``pvc://`` put them."""
    inside = (folder.resolve(), PVC.resolve())
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_symlink() and not any(path.resolve().is_relative_to(root) for root in inside):
            raise _unsafe(name, "is a link that leaves the folder")
        if len(name.parts) > DEPTH:
            raise _unsafe(name, f"lies more than {DEPTH} folders deep")
        if path.is_file():
            found.append(path)
        elif path.exists() and not path.is_dir():
            raise _unsafe(name, "is neither a file nor a folder")
        if len(found) > FILES:
            raise RunFailed(Reason.UNSAFE_SOURCE, f"the model has more than {FILES} files")
    return found


def _disguise(head: bytes) -> str:
    """What a file is by its first bytes; empty for what may be."""
    if head[TAR_MAGIC:] == b"ustar":
        return "a tar archive"
    return next((what for magic, what in MAGIC.items() if head.startswith(magic)), "")


def _unsafe(name: Path, what: str) -> RunFailed:
    return RunFailed(Reason.UNSAFE_SOURCE, f"{name}: {what}")

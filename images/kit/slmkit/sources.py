"""Where bytes come from. One function, ``fetch``; and the check that every model folder has to pass before it is read."""

import ipaddress
import json
import socket
import struct
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import httpx

from slmkit.access import bearer
from slmkit.registry import Registry
from slmkit.run import RunFailed
from slmops.contract import Reason, Source

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".joblib", ".py", ".pyc", ".so"}
WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.jsonl", "*.jsonl.zst", "*.csv", "*.parquet"]
FILE_LIMIT = 64 << 30
HEADER_LIMIT = 100 << 20
JSON_LIMIT = 16 << 20
"""Bytes of a configuration file. Indexes of the largest models have a tenth of it."""
PVC_ROOT = Path("/mnt/pvc")


def fetch(source: Source, into: Path, registry: Registry, kind: Literal["model", "dataset"] = "model") -> str:
    """Bring a source into a folder. Returns its address by digest or revision, which gives the same bytes again.

    ``kind`` matters to hubs alone, which keep models and data sets apart."""
    scheme, _, rest = source.uri.partition("://")
    into.mkdir(parents=True, exist_ok=True)
    if scheme == "oci":
        return registry.pull(source, into)
    if scheme in ("https", "http"):
        return _download(source, into)
    if scheme == "hf":
        return _hub(source, rest, into, kind)
    if scheme == "pvc":
        return _claim(source, rest, into)
    raise RunFailed(Reason.INVALID_CONFIGURATION, f"{source.uri}: {scheme}:// needs an image that has its library")


def _download(source: Source, into: Path) -> str:
    """One file. Redirects are followed only to public addresses: a data set's server may not point us inwards."""
    url = source.uri
    headers = bearer(source.credentials)
    for _ in range(5):
        try:
            _refuse_internal(source.uri, url)
            with httpx.stream("GET", url, headers=headers, timeout=60, follow_redirects=False) as answer:
                if answer.has_redirect_location:
                    target = httpx.URL(url).join(answer.headers["Location"])
                    if _origin(target) != _origin(httpx.URL(url)):
                        headers = {}
                    url = str(target)
                    continue
                if answer.status_code == 404:
                    raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{source.uri}: answered 404")
                if answer.status_code in (401, 403):
                    raise RunFailed(Reason.SOURCE_UNAUTHORIZED, f"{source.uri}: answered {answer.status_code}")
                if not answer.is_success:
                    raise RunFailed(Reason.SOURCE_UNREACHABLE, f"{source.uri}: answered {answer.status_code}")
                name = _file_name(source.uri)
                size = 0
                with (into / name).open("wb") as file:
                    for chunk in answer.iter_bytes(1 << 20):
                        size += len(chunk)
                        if size > FILE_LIMIT:
                            raise RunFailed(Reason.UNSAFE_SOURCE, f"{source.uri}: larger than {FILE_LIMIT} bytes")
                        file.write(chunk)
                return source.uri
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RunFailed(Reason.SOURCE_UNREACHABLE, f"{source.uri}: {type(error).__name__}: {error}") from None
    raise RunFailed(Reason.SOURCE_UNREACHABLE, f"{source.uri}: too many redirects")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _file_name(uri: str) -> str:
    name = Path(unquote(httpx.URL(uri).path)).name
    return name if name.isprintable() and name not in ("", "..") and len(name.encode()) < 256 else "data.jsonl"


def _refuse_internal(source: str, url: str) -> None:
    """The host is read as the client reads it that connects afterwards: two parsers could see two hosts."""
    host = httpx.URL(url).raw_host.decode("ascii")
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError) as error:
        raise RunFailed(Reason.SOURCE_UNREACHABLE, f"{source}: {host}: {error}") from None
    for address in addresses:
        if not ipaddress.ip_address(str(address).partition("%")[0]).is_global:
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{source}: {host} is an internal address")


def _hub(source: Source, rest: str, into: Path, kind: str) -> str:
    try:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
    except ImportError:
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"{source.uri}: this image has no huggingface_hub") from None
    name, _, revision = rest.partition("@")
    token = bearer(source.credentials).get("Authorization", "").removeprefix("Bearer ") or None
    try:
        commit = HfApi(token=token).repo_info(name, repo_type=kind, revision=revision or None).sha
        snapshot_download(name, repo_type=kind, revision=commit, local_dir=into, token=token, allow_patterns=WANTED)
    except RepositoryNotFoundError:
        raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{source.uri}: no such repository, or no right to read it") from None
    except (HfHubHTTPError, OSError) as error:
        raise RunFailed(Reason.SOURCE_UNREACHABLE, f"{source.uri}: {type(error).__name__}: {error}") from None
    return f"hf://{name}@{commit}"


def _claim(source: Source, rest: str, into: Path) -> str:
    claim, _, path = rest.partition("/")
    root = (PVC_ROOT / claim).resolve()
    folder = (root / path).resolve()
    if claim in ("", ".", "..") or not folder.is_relative_to(root):
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{source.uri} leaves the volume")
    if not folder.exists():
        raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{source.uri}: not there")
    for file in [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file()):
        if not file.resolve().is_relative_to(root):
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{source.uri}: {file.name} is a link that leaves the volume")
        target = into / (file.name if folder.is_file() else file.relative_to(folder))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file.resolve())
    return source.uri


def check_model_folder(folder: Path) -> None:
    """Refuse what could run code or mislead a parser. Raises RunFailed with reason UnsafeSource."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        if path.suffix.lower() in PICKLES:
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{path.name}: files that can carry code are never loaded; publish "
                            "the model as safetensors")  # fmt: skip
        if path.suffix == ".safetensors":
            _check_safetensors(path)
    for path in files:
        if path.name.endswith("config.json") and "auto_map" in _json(path):
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{path.name}: auto_map asks for code of the model's own")
        if path.name.endswith(".index.json"):
            _check_index(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes()) if path.stat().st_size <= JSON_LIMIT else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{path.name}: not a JSON object of at most {JSON_LIMIT} bytes")
    return content


def _check_index(path: Path) -> None:
    """Weights in several files: loaders open what the index names, so it names files that were looked at here."""
    names = _json(path).get("weight_map")
    for name in names.values() if isinstance(names, dict) else [None]:
        if not isinstance(name, str) or "/" in name or not name.endswith(".safetensors"):
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{path.name}: {name!r} is not the name of a safetensors file")
        if not (path.parent / name).is_file():
            raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{path.name} names {name}, which is not there")


def _check_safetensors(path: Path) -> None:
    """The header of a safetensors file: bounded, and tensors lie side by side within the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        raw = file.read(8)
        length = struct.unpack("<Q", raw)[0] if len(raw) == 8 else size
        if length > min(HEADER_LIMIT, size - 8):
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{path.name}: not a safetensors file, or a forged header")
        try:
            header = json.loads(file.read(length))
            spans = sorted(_span(tensor) for name, tensor in header.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{path.name}: the header is not understood") from None
    end = 0
    for begin, stop in spans:
        if begin != end or stop < begin:
            raise RunFailed(Reason.UNSAFE_SOURCE, f"{path.name}: tensors overlap or leave gaps")
        end = stop
    if end != size - 8 - length:
        raise RunFailed(Reason.UNSAFE_SOURCE, f"{path.name}: data and header do not fit together")


def _span(tensor: Any) -> tuple[int, int]:
    begin, stop = tensor["data_offsets"]
    if not isinstance(begin, int) or not isinstance(stop, int):
        raise TypeError
    return begin, stop

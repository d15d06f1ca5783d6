"""``hf://org/name[@revision]``: a model or a data set of Hugging Face's hub, by commit."""

import os
from pathlib import Path

import httpx

from slmkit.access import bearer
from slmkit.full import full
from slmkit.net import Gate, Transport
from slmkit.run import RunFailed
from slmops.contract import Reason, Source

WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.jsonl", "*.jsonl.zst", "*.csv", "*.parquet",
          "README.md", "LICENSE*", "LICENCE*", "COPYING*", "NOTICE*"]  # fmt: skip


def snapshot(source: Source, rest: str, into: Path, kind: str) -> str:
    """Fetch what is needed of a repository. Its client connects through our gate."""
    # Its second way of downloading is a library in another language, which would connect by itself.
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    try:
        from huggingface_hub import HfApi, set_client_factory, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
    except ImportError:
        raise RunFailed(Reason.INVALID_CONFIGURATION, f"{source.uri}: this image has no huggingface_hub") from None
    set_client_factory(lambda: httpx.Client(transport=Transport(Gate()), follow_redirects=True, timeout=60))
    name, _, revision = rest.partition("@")
    token = bearer(source.credentials).get("Authorization", "").removeprefix("Bearer ") or None
    try:
        commit = HfApi(token=token).repo_info(name, repo_type=kind, revision=revision or None).sha
        snapshot_download(name, repo_type=kind, revision=commit, local_dir=into, token=token, allow_patterns=WANTED)
    except RepositoryNotFoundError:
        raise RunFailed(Reason.SOURCE_NOT_FOUND, f"{source.uri}: no such repository, or no right to read it") from None
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        if full(error):
            raise
        raise RunFailed(Reason.SOURCE_UNREACHABLE, f"{source.uri}: {type(error).__name__}: {error}") from None
    return f"hf://{name}@{commit}"

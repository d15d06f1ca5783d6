"""Kubeconfigs, service accounts and certificates for tests."""

from pathlib import Path
from typing import Any

import yaml

from slmops.cluster.connection import Connection

CANARY = "canary-9f3b"
"""A secret. It must not be seen anywhere but in a request."""


def kubeconfig(
    folder: Path,
    user: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
    name: str = "config",
) -> Path:
    content = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", **(context or {})}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path = folder / name
    path.write_text(yaml.safe_dump(content))
    return path


async def header(connection: Connection, renew: bool = False) -> str | None:
    return await connection.authorization(renew)


def service_account(tmp_path: Path, authority: Path) -> Path:
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text(CANARY)
    (folder / "namespace").write_text("slmops-system\n")
    (folder / "ca.crt").write_bytes((authority / "ca.crt").read_bytes())
    return folder

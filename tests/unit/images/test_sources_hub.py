"""``hf://`` by the hub's own library, over a hub that is none: bytes are counted, refusals have their reason."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from slmkit.run import Context, RunFailed
from slmkit.sources import hub
from slmops.contract import Reason, Source

COMMIT = "0" * 39 + "1"
FILES = {"model.safetensors": b"w" * 300_000, "config.json": b"{}", "tokenizer/x.json": b"[]", "run.py": b"no " * 999}


def answer(request: httpx.Request) -> httpx.Response:
    """The hub's answers as far as they matter: a list of files, and the files."""
    path = request.url.path
    if "/missing" in path:  # to somebody without a token, it does not say which of the two it is
        return httpx.Response(401, headers={"X-Error-Code": "RepoNotFound"}, json={"error": "no"}, request=request)
    if "/closed" in path:
        return httpx.Response(403, headers={"X-Error-Code": "GatedRepo"}, json={"error": "no"}, request=request)
    if path.startswith("/api/") and "/tree/" in path:
        return httpx.Response(200, json=[{"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                                         for name, content in FILES.items()], request=request)  # fmt: skip
    if path.startswith("/api/"):
        siblings = [{"rfilename": name, "size": len(content)} for name, content in FILES.items()]
        return httpx.Response(200, json={"id": "org/model", "sha": COMMIT, "siblings": siblings}, request=request)
    name = path.partition(f"/resolve/{COMMIT}/")[2]
    content = FILES[name] if request.method == "GET" else b""
    headers = {"ETag": f'"{name.replace("/", "-")}"', "X-Repo-Commit": COMMIT, "Content-Length": str(len(FILES[name]))}
    return httpx.Response(200, headers=headers, stream=httpx.ByteStream(content), request=request)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "Transport", lambda gate: httpx.MockTransport(answer))


def test_only_what_is_fetched_counts() -> None:
    listed = [SimpleNamespace(rfilename=name, size=len(content)) for name, content in FILES.items()]
    assert hub.wanted_bytes(listed) == 300_004
    assert hub.wanted_bytes([SimpleNamespace(rfilename="config.json", size=None)]) == 0


def test_bytes_of_files_are_counted_and_those_of_the_list_are_not() -> None:
    context = Context()
    client = httpx.Client(transport=hub.Counting(httpx.MockTransport(answer), context))
    client.get("https://huggingface.co/api/models/org/model")
    assert context.progress.step == 0
    client.get(f"https://huggingface.co/org/model/resolve/{COMMIT}/model.safetensors")
    assert context.progress.step == 300_000
    context.stopping.set()
    with pytest.raises(RunFailed) as failed:
        client.get(f"https://huggingface.co/org/model/resolve/{COMMIT}/config.json")
    assert failed.value.reason is Reason.TERMINATED


def snapshot(into: Path, name: str = "org/model", **options: Any) -> str:
    pytest.importorskip("huggingface_hub")
    return hub.snapshot(Source(uri=f"hf://{name}"), name, into, "model", **options)


def test_a_model_comes_by_its_commit_and_its_bytes_are_counted(tmp_path: Path) -> None:
    context = Context()
    context.stage("Fetching")
    assert snapshot(tmp_path, meter=context) == f"hf://org/model@{COMMIT}"
    assert (tmp_path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert not (tmp_path / "run.py").exists()
    assert context.progress.step == context.progress.of == 300_004


@pytest.mark.parametrize(
    ("name", "reason"), [("org/missing", Reason.SOURCE_NOT_FOUND), ("org/closed", Reason.SOURCE_UNAUTHORIZED)]
)
def test_a_refusal_has_its_reason(tmp_path: Path, name: str, reason: Reason) -> None:
    """Whichever client the library thinks that it has."""
    with pytest.raises(RunFailed) as failed:
        snapshot(tmp_path, name)
    assert failed.value.reason is reason

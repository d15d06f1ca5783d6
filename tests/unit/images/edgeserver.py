"""A server of the edge runtime whose model is held in the test's hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slm_edge.engine import Engine
from slm_edge.server import Server
from slmops.contract import ServeRun
from tests.unit.images.fakeedge import PATIENCE, Exchange, FakeGenAI, make_engine, model_folder

CHAT = "/v1/chat/completions"


class Edge:
    """A server whose model is held in the test's hand."""

    def __init__(self, engine: Engine, library: FakeGenAI, seconds: float) -> None:
        self.engine, self.library = engine, library
        run = ServeRun(model_name="m", model_path="/models", revision="r1", request_timeout_seconds=seconds)
        self.server = Server(run, engine, engine._metrics)
        self._app = self.server.app()

    def send(self, method: str, path: str, body: bytes | list[bytes] = b"", **headers: str) -> Exchange:
        return Exchange(self._app, method, path, body, **headers)

    async def get(self, path: str) -> Exchange:
        return await self.send("GET", path).done()

    def chat(self, text: str = "q", **fields: Any) -> Exchange:
        body = {"model": "m", "messages": [{"role": "user", "content": text}]} | fields
        return self.send("POST", CHAT, json.dumps(body).encode())

    async def figures(self) -> dict[str, float]:
        """The metrics, by name and labels."""
        lines = (await self.get("/metrics")).body.decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if line.startswith("slmops_"))
        return {name.removeprefix("slmops_runtime_"): float(value) for name, _, value in pairs}


Make = Callable[..., Edge]


def maker(monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, folder: Path) -> Make:
    """Makes servers."""
    model_folder(folder)

    def make(seconds: float = PATIENCE, loaded: bool = True, **fields: Any) -> Edge:
        engine = make_engine(monkeypatch, library, folder, **fields)
        engine.start()
        if loaded:
            assert engine.ready.wait(PATIENCE), engine.failure
        return Edge(engine, library, seconds)

    return make

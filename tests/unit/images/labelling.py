"""Labelling runs, from prompts on a volume to a published data set."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from slm_trainer.label import label
from slmkit.run import Context
from slmops.contract import LabelRun, Report
from tests.unit.images import volumes
from tests.unit.images.fakellm import FakeLLM, play
from tests.unit.images.fakeregistry import FakeRegistry


class Labelling:
    """A labelling run over a volume, a teacher and a registry of its own; each call is a pod of its own."""

    def __init__(self, folder: Path, volume: Path, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
        self.volume, self.registry = volume, registry
        self.folder, self.pods = folder, 0
        (folder / "state").mkdir()
        monkeypatch.setattr(asyncio, "run", lambda main: play(lambda: main, self.llm))
        self.llm = FakeLLM()

    def label(self, llm: FakeLLM | None = None, min_success_ratio: float = 0.7, **fields: Any) -> Report:
        """The report of a pod; without a teacher of its own it asks the one of the pod before."""
        self.llm = llm or self.llm
        self.pods += 1
        self.context = Context(work=self.folder / f"work-{self.pods}", state=self.folder / "state")
        self.context.work.mkdir()
        wanted = {
            "run": "r", "registry": self.registry.settings, "output": {"repository": f"{self.registry.host}/slm/labelled"},
            "train": volumes.data("train"), "validation_split": 0.0,
            "endpoint": {"url": f"{self.llm.url}/v1", "model": "m", "min_success_ratio": min_success_ratio},
        }  # fmt: skip
        return label(LabelRun.model_validate(wanted | fields), self.context)

    def give(self, *records: dict[str, str], name: str = "train") -> None:
        """Records in a file of the volume."""
        volumes.write(self.volume, name, *records)

    def file(self, report: Report, name: str) -> bytes:
        """A file of the published data set."""
        manifest = self.registry.manifest("slm/labelled", report.artifacts["dataset"].reference.partition("@")[2])
        (digest,) = [
            layer["digest"]
            for layer in manifest["layers"]
            if layer["annotations"]["org.opencontainers.image.title"] == name
        ]
        return self.registry.blobs["slm/labelled", digest]

    def records(self, report: Report, name: str) -> list[list[dict[str, str]]]:
        """The conversations in a file of the published data set."""
        return [json.loads(line)["messages"] for line in self.file(report, f"{name}.jsonl").splitlines()]

    def made(self, report: Report, name: str) -> list[tuple[str, str]]:
        """(prompt, answer) of a file of the published data set."""
        return [(messages[-2]["content"], messages[-1]["content"]) for messages in self.records(report, name)]

    def systems(self, report: Report) -> set[str]:
        """The system messages that the student will see."""
        return {messages[0]["content"] for messages in self.records(report, "train")}

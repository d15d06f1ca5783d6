"""Variants side by side: published for machines and for people, and the same again for the same variants."""

import json
from pathlib import Path
from typing import Any

from slm_trainer.comparison.page import page
from slm_trainer.comparison.run import compare
from slmkit.run import Context
from slmops.contract import REPORT_TYPE, CompareRun
from tests.unit.images.fakeregistry import FakeRegistry

IMAGE = f"registry.example/slm/tuned@sha256:{'a' * 64}"


def row(name: str, quality: float, **fields: Any) -> dict[str, Any]:
    return {"name": name, "precision": "INT4", "image": IMAGE, "outcome": "Ready", "quality": quality,
            "weight_bytes": 2 << 20, "optimal": True} | fields  # fmt: skip


def run(*rows: dict[str, Any], host: str = "registry.example") -> CompareRun:
    return CompareRun.model_validate(
        {"run": "tuned-compare-0a1b2c3d", "registry": {"plain_http": [host]}, "measure": "ExactMatch", "rows": rows,
         "annotations": {"slmops.dev/name": "farm/tuned"}, "output": {"repository": f"{host}/slm/tuned"}}
    )  # fmt: skip


TWO = (
    row("small", 0.9, seconds=0.02, memory_bytes=300 << 20, outcome="Rejected"),
    row("full", 0.97, seconds=0.04, memory_bytes=400 << 20, weight_bytes=8 << 20, precision="FP32", optimal=False),
)


def test_the_comparison_is_published_for_machines_and_for_people(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        made = compare(run(*TWO, host=registry.host), Context(work=tmp_path / "a")).artifacts["comparison"]
        again = compare(run(*TWO, host=registry.host), Context(work=tmp_path / "b")).artifacts["comparison"]
        manifest = json.loads(registry.manifests["slm/tuned", made.reference.partition("@")[2]][1])
        files = {
            layer["annotations"]["org.opencontainers.image.title"]: registry.blobs["slm/tuned", layer["digest"]]
            for layer in manifest["layers"]
        }
    assert made == again
    assert manifest["artifactType"] == REPORT_TYPE
    content = json.loads(files["comparison.json"])
    assert [(found["name"], found["quality"], found["optimal"]) for found in content["rows"]] == [
        ("small", 0.9, True), ("full", 0.97, False),
    ]  # fmt: skip
    assert "Variants of farm/tuned" in files["comparison.html"].decode()


def test_the_page_has_a_picture_of_each_cost_that_is_known_of_two() -> None:
    shown = page(run(*TWO), "farm/tuned")
    assert shown.count("<svg") == 3
    assert page(run(row("a", 0.9, seconds=0.1), row("b", 0.8)), "x").count("<svg") == 1
    assert "90.0%" in shown
    assert ">missed<" in shown


def test_equal_variants_can_be_drawn() -> None:
    assert page(run(row("a", 0.0), row("b", 0.0)), "x").count("<svg") == 1


def test_a_page_runs_nothing_that_a_name_brings_along() -> None:
    shown = page(run(*TWO), "<script>alert(1)</script>")
    assert "<script" not in shown


def test_what_pruning_has_come_to_is_told_where_there_was_any() -> None:
    came = {"sparsity": 0.512, "similarity": 0.99, "packed_bytes": 1 << 20, "dense_packed_bytes": 3 << 19}
    shown = page(run(row("lean", 0.9, pruned=came), row("b", 0.8)), "x")
    assert "51.2%" in shown
    assert ">1.5<" in shown
    assert "pruning" not in page(run(*TWO), "x")

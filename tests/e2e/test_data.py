"""Data sets in other files than JSON Lines: from the registry through Jobs to what status and report say of them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from demo.assets import records
from demo.steps import Manifest, condition
from demo.task import IRRIGATION
from slmkit.data import Example, write_messages
from slmops.contract import Source
from tests.e2e.platform import NAMESPACE, Platform
from tests.e2e.toys import client, publish

pytestmark = pytest.mark.cluster
SECONDS = 600
BAD_ROW = 17


def _parquet(path: Path, examples: list[Example], bad: int | None = None) -> Path:
    rows = [{"question": e.prompt[-1]["content"], "answer": e.completion, "source": 7} for e in examples]
    if bad is not None:
        rows[bad - 1]["question"] = " "
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)
    return path


def _pulled(platform: Platform, reference: str, folder: Path) -> dict[str, str]:
    client(platform).pull(Source(uri=f"oci://{reference}"), folder)
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix != ".zst"}


def _resource(platform: Platform, kind: str, name: str, spec: dict[str, Any]) -> Manifest:
    return {
        "apiVersion": "slmops.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "training": {"epochs": 1, "batchSize": 8},
            "evaluation": {"samples": 4, "maxNewTokens": 8},
            "output": {"repository": f"{platform.registry}/slm/{name}"},
            "run": {"nodeSelector": {"pool": "gpu"}, "retries": 0},
            **spec,
        },
    }  # fmt: skip


def _finetune(platform: Platform, name: str, data: dict[str, Any]) -> Manifest:
    base = {"base": {"uri": f"oci://{platform.registry}/slm/teacher:v1"}, "lora": {"rank": 4}}
    return _resource(platform, "FineTune", name, {**base, "data": data})


@pytest.fixture
def columns() -> dict[str, Any]:
    return {"format": "PromptCompletion", "columns": {"prompt": "question", "completion": "answer"}}


def test_a_finetune_learns_from_parquet_and_says_what_it_dropped(
    platform: Platform, columns: dict[str, Any], tmp_path: Path
) -> None:
    made = list(records((IRRIGATION,), 4, 40))
    train = _parquet(tmp_path / "train.parquet", [*made[:30], *made[:5]])
    held_out = _parquet(tmp_path / "validation.parquet", made[28:])
    data = {"uri": publish(platform, "e2e-parquet", train, held_out), **columns}
    platform.apply(
        _finetune(platform, "from-parquet", {
            "train": {**data, "path": train.name}, "validation": {**data, "path": held_out.name},
            "filters": {"maxTokens": 1000, "nearDuplicates": 0.99},
        })
    )  # fmt: skip
    status = platform.wait("finetune", "from-parquet", "Succeeded", "True", SECONDS)["status"]
    dataset = status["dataset"]
    assert (dataset["prompts"], dataset["kept"]) == (47, 40), dataset
    assert dataset["dropped"] == {"Duplicate": 5, "Leaked": 2}
    assert dataset["tokens"] > 0
    files = _pulled(platform, dataset["report"], tmp_path / "report")
    assert set(files) == {"report.json", "report.html"}
    assert "The prompt is in the held-out records, too." in files["report.html"]


def test_a_distillation_takes_packed_prompts_and_publishes_the_report_beside_the_data(
    platform: Platform, tmp_path: Path
) -> None:
    plain, packed = tmp_path / "prompts.jsonl", tmp_path / "prompts.jsonl.zst"
    made = list(records((IRRIGATION,), 4, 40, answers=False))
    write_messages(plain, [*made, *made[:3]])
    packed.write_bytes(zstandard.compress(plain.read_bytes()))
    teacher = {"model": {"uri": f"oci://{platform.registry}/slm/teacher:v1"}, "sampling": {"maxTokens": 48}}
    student = {"architecture": {"hiddenSize": 32, "layers": 1, "attentionHeads": 2, "keyValueHeads": 1,
                                "intermediateSize": 64}}  # fmt: skip
    platform.apply(
        _resource(platform, "Distillation", "from-zst", {
            "teacher": teacher, "student": student,
            "data": {"train": {"uri": publish(platform, "e2e-zst", packed)}, "validationSplit": 0.2},
        })
    )  # fmt: skip
    status = platform.wait("distillation", "from-zst", "Succeeded", "True", SECONDS)["status"]
    dataset = status["dataset"]
    assert dataset["prompts"] == 43
    assert dataset["kept"] + sum(dataset["dropped"].values()) == 43, dataset
    assert 1 <= dataset["dropped"]["Duplicate"] <= 3
    files = _pulled(platform, dataset["report"], tmp_path / "dataset")
    assert set(files) == {"train.jsonl", "validation.jsonl", "report.json", "report.html"}
    assert len((files["train.jsonl"] + files["validation.jsonl"]).splitlines()) == dataset["kept"]


def test_a_bad_row_is_refused_with_its_file_its_row_and_its_column(
    platform: Platform, columns: dict[str, Any], tmp_path: Path
) -> None:
    path = _parquet(tmp_path / "train.parquet", list(records((IRRIGATION,), 4, 40)), bad=BAD_ROW)
    data = {"uri": publish(platform, "e2e-bad-row", path), **columns}
    platform.apply(_finetune(platform, "bad-row", {"train": data, "validationSplit": 0.2}))
    found = condition(platform.wait("finetune", "bad-row", "Succeeded", "False", SECONDS), "Succeeded")
    assert found["reason"] == "InvalidData"
    assert f"train.parquet row {BAD_ROW}: question: text is expected, found an empty one" in found["message"]
    assert "Mend the named record" in found["message"]

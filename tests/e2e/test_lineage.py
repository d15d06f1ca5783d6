"""Lineage in the registry that all use: what a run published leads back to its data, by code that knows no cluster."""

import json
from pathlib import Path

import pytest

from demo.assets import records
from demo.task import IRRIGATION
from slmkit import bom, provenance
from slmkit.data import write_messages
from slmkit.lineage import walk
from slmkit.registry import Registry
from slmops import contract
from slmops.contract import DATASET_TYPE, Sink, Source
from tests.e2e.platform import NAMESPACE, Platform

pytestmark = pytest.mark.cluster


def test_what_was_published_leads_back_to_its_data_by_the_registry_alone(platform: Platform, tmp_path: Path) -> None:
    client = Registry(contract.Registry(plain_http=platform.cluster.plain_http))
    path = tmp_path / "train.jsonl"
    write_messages(path, records((IRRIGATION,), 4, 40))
    sink = Sink(repository=f"{platform.registry}/slm/data/e2e-lineage")
    data = f"oci://{client.push_artifact(sink, {path.name: path}, DATASET_TYPE, {}).reference}"
    platform.apply({
        "apiVersion": "slmops.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": "told", "namespace": NAMESPACE},
        "spec": {
            "base": {"uri": f"oci://{platform.registry}/slm/teacher:v1"}, "lora": {"rank": 4},
            "data": {"train": {"uri": data}, "validationSplit": 0.2}, "training": {"maxSteps": 4, "batchSize": 8},
            "evaluation": {"samples": 4, "maxNewTokens": 8}, "run": {"nodeSelector": {"pool": "gpu"}, "retries": 0},
            "output": {"repository": f"{platform.registry}/slm/told"},
        },
    })  # fmt: skip
    status = platform.wait("finetune", "told", "Succeeded", "True", 240)["status"]
    (job,) = platform.kubectl.items("jobs", "-l", "slmops.dev/name=told")
    for made in (status["artifact"]["reference"], status["adapter"]["reference"]):
        inputs = {link.role: link.uri for link in walk(client, made) if link.depth == 1}
        assert inputs == {"base": status["inputs"]["base"], "train": data}
        annotations = client.annotations(made)
        assert annotations["slmops.dev/image"] == platform.images["trainer"]
        statements = [json.loads(document) for document in client.referrers(made, provenance.MEDIA_TYPE)]
        assert {said["subject"][0]["digest"]["sha256"] for said in statements} == {made.rpartition(":")[2]}
        runs = {said["predicate"]["runDetails"]["metadata"]["invocationId"] for said in statements}
        assert runs == {job["metadata"]["name"]}, (
            "the registry remembers earlier sessions: their runs have the same name"
        )
        parts = json.loads(client.referrers(made, bom.MEDIA_TYPE)[0])
        named = {part["name"] for part in parts["components"]}
        assert {"transformers", "peft", "teacher", "e2e-lineage", "trainer"} <= named
        folder = tmp_path / made.rpartition(":")[2]
        client.pull(Source(uri=f"oci://{made}"), folder)
        card = (folder / "README.md").read_text()
        assert annotations["slmops.dev/configuration"] in card
        assert f"datasets:\n- {data}" in card

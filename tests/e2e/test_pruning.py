"""A pruned QuantizedModel on the real cluster: zeros in what is published, what has come of it in status, columns and the
comparison, and what all of it cost."""

from pathlib import Path

import pytest

from demo.assets import records
from demo.task import IRRIGATION
from slmkit.registry import Registry
from slmops import contract
from tests.e2e.platform import NAMESPACE, Platform
from tests.e2e.toys import dataset

pytestmark = [pytest.mark.cluster, pytest.mark.long]
SECONDS = 600
NAME = "pruned"


def test_a_pruned_model_is_published_with_its_zeros_and_says_what_has_come_of_it(
    platform: Platform, base: str, tmp_path: Path
) -> None:
    data = dataset(platform, tmp_path, "pruned", records((IRRIGATION,), 7, 120))
    platform.apply({
        "apiVersion": "slmops.dev/v1alpha1", "kind": "QuantizedModel", "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "model": {"uri": base},
            "compress": {"prune": {"method": "Wanda", "structure": "2:4"}},
            "calibration": {"data": {"uri": data}, "samples": 8},
            "variants": [{"name": "int4"}, {"name": "int8", "format": "Safetensors", "precision": "INT8"}],
            "evaluation": {"data": {"uri": data}, "samples": 8, "maxNewTokens": 4, "metrics": ["Perplexity"]},
            "budget": {"price": {"perNodeHour": 1, "currency": "EUR"}},
            "run": {"nodeSelector": {"pool": "gpu"}},
            "output": {"repository": f"{platform.registry}/slm/{NAME}"},
        },
    })  # fmt: skip
    status = platform.wait("quantizedmodel", NAME, "Succeeded", "True", SECONDS)["status"]

    client = Registry(contract.Registry(plain_http=platform.cluster.plain_http))
    for variant in status["variants"]:
        assert 0.5 <= variant["pruning"]["sparsity"] < 0.8
        assert {"packedSize", "densePackedSize"} <= variant["pruning"].keys()
        assert variant["evaluation"]["comparison"]["PerplexityIncrease"] > -1, (
            "against the model with all of its weights"
        )
        assert float(client.annotations(variant["reference"])["slmops.dev/sparsity"]) >= 0.5
    assert all(float(row["sparsity"].rstrip("%")) >= 50 for row in status["comparison"])
    assert float(status["cost"]["amount"]) > 0
    shown = platform.kubectl("get", "quantizedmodel", NAME, "-n", NAMESPACE)
    assert status["sizes"] in shown
    assert status["sizes"].count(",") == 1

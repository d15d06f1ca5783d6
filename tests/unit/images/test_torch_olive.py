"""Olive is told no option that it does not know, and given data where it would fetch some."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("olive")

from slm_quantizer import olive
from slm_quantizer.calibrated import calibrated_by
from slmkit.run import RunFailed
from slmops.contract import Reason


def refused(tmp_path: Path, **options: Any) -> str:
    described = olive.workflow(tmp_path, {"step": options}, tmp_path / "out", tmp_path / "cache")
    with pytest.raises(RunFailed) as failed:
        olive.validate(described)
    assert failed.value.reason is Reason.INVALID_CONFIGURATION
    return failed.value.message


def test_an_option_that_olive_would_pass_over_is_refused(tmp_path: Path) -> None:
    assert "does not know int4_blocks" in refused(tmp_path, type="ModelBuilder", precision="int4", int4_blocks=32)
    assert "precision" in refused(tmp_path, type="ModelBuilder", precision="int5")


def test_an_unknown_pass_is_refused(tmp_path: Path) -> None:
    assert "'quantise' not found" in refused(tmp_path, type="Quantise")


def test_a_pass_that_would_fetch_data_has_to_be_given_some(tmp_path: Path) -> None:
    assert "from the web" in refused(tmp_path, type="Gptq", bits=4)
    given = {"quantize": {"type": "Gptq", "bits": 4, "data_config": calibrated_by(tmp_path)}}
    olive.validate(olive.workflow(tmp_path, given, tmp_path / "out", tmp_path / "cache"))

"""Olive is told no option that it does not know, and given data where it would fetch some."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("olive")

from slm_quantizer import olive as ours
from slm_quantizer.calibrated import calibrated_by
from slmkit.run import RunFailed
from slmops.contract import Reason

WHOLE = ("model.onnx", "genai_config.json")
BUILD: dict[str, dict[str, Any]] = {"build": {"type": "ModelBuilder", "precision": "int4"}}


def test_what_a_pass_raises_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import olive.workflows

    def run(workflow: dict[str, Any]) -> None:
        raise ValueError("cannot reshape array")

    monkeypatch.setattr(olive.workflows, "run", run)
    with pytest.raises(RunFailed, match="Olive made no INT4 model of this one: cannot reshape array") as failed:
        ours.carry_out(tmp_path / "model", BUILD, tmp_path / "out", WHOLE, "INT4 model")
    assert failed.value.reason is Reason.CONVERSION_FAILED


def refused(tmp_path: Path, **options: Any) -> str:
    described = ours.workflow(tmp_path, {"step": options}, tmp_path / "out", tmp_path / "cache")
    with pytest.raises(RunFailed) as failed:
        ours.validate(described)
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
    ours.validate(ours.workflow(tmp_path, given, tmp_path / "out", tmp_path / "cache"))

"""What Olive learns from: the trainer's own sets, as it is the trainer that measures what Olive made."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.steps import ROOT
from slm_quantizer.records import records
from slm_trainer.dataset.sets import prepare
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmops.contract import Reason, TrainRun
from tests.unit.images.volumes import give


def run(**fields: Any) -> TrainRun:
    base = {"uri": "oci://registry.example/base:v1"}
    plan = {"run": "r", "engine": "Olive", "method": "LoRA", "base": base, "output": {"repository": "r.example/x"}}
    return TrainRun.model_validate(plan | fields)


def learned(plan: TrainRun, work: Path) -> list[tuple[str, str | None]]:
    work.mkdir(exist_ok=True)
    return [(e.prompt[-1]["content"], e.completion) for e in records(plan, Context(work=work), Registry(plan.registry))]


@pytest.mark.parametrize("held_out", ["validation", "evaluation"])
def test_no_prompt_is_learned_that_the_adapter_is_measured_by(held_out: str, volume: Path, tmp_path: Path) -> None:
    train = give(volume, "train", ("a", "1"), ("b", "2"), ("c", None), ("d", "4"))
    held = give(volume, "held", ("b", "2"), ("d", None))
    plan = run(train=train, **{held_out: held if held_out == "validation" else {"data": held}})
    assert learned(plan, tmp_path / "work") == [("a", "1")]


def test_they_are_the_trainers(volume: Path, tmp_path: Path) -> None:
    plan = run(train=give(volume, "train", *((str(n % 150), str(n)) for n in range(200))), validation_split=0.25)
    found = learned(plan, tmp_path / "work")
    context = Context(work=tmp_path / "other")
    context.work.mkdir()
    trained = prepare(plan.model_copy(update={"engine": "PyTorch"}), context, Registry(plan.registry)).training
    assert found == [(e.prompt[-1]["content"], e.completion) for e in trained]
    assert 100 < len(found) < 200


def test_nothing_left_is_a_failure_that_says_where_it_went(volume: Path, tmp_path: Path) -> None:
    plan = run(train=give(volume, "train", ("a", "1")), validation=give(volume, "held", ("a", "1")))
    with pytest.raises(RunFailed, match="no record is left to train on: 1 Leaked") as failed:
        learned(plan, tmp_path / "work")
    assert failed.value.reason is Reason.INVALID_DATA


def test_the_quantizers_image_has_what_that_needs() -> None:
    """It has neither the libraries that draw reports nor those that look for near duplicates."""
    constraints = (ROOT / "images/quantizer/constraints.txt").read_text()
    absent = [name for name in ("datasketch", "pygal") if f"\n{name}==" not in constraints]
    block = "; ".join(f"sys.modules[{name!r}] = None" for name in absent)
    done = subprocess.run([sys.executable, "-c", f"import sys; {block}; import slm_quantizer.records"], check=False,
                          capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)})  # fmt: skip
    assert (absent, done.returncode, done.stderr) == (["datasketch", "pygal"], 0, "")

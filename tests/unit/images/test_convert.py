"""A conversion is judged by what it made."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from slm_quantizer import convert as converting
from slmkit.run import RunFailed
from slmops.contract import QuantizeRun, Reason, Sink, Source

WHOLE = ("model.onnx", "genai_config.json")


class Result:
    """What Olive says at its end."""

    def __init__(self, good: bool) -> None:
        self._good = good

    def has_output_model(self) -> bool:
        return self._good


@pytest.fixture
def olive(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Olive, with what it says and what it writes."""

    def behaves(says: bool, *writes: str) -> None:
        def run(workflow: dict[str, Any]) -> Result:
            folder = Path(workflow["output_dir"])
            folder.mkdir()
            for name in writes:
                (folder / name).write_text("x")
            return Result(says)

        package, module = ModuleType("olive"), ModuleType("olive.workflows")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "olive", package)
        monkeypatch.setitem(sys.modules, "olive.workflows", module)
        monkeypatch.setattr(converting, "_fit_together", lambda: None)

    return behaves


RUN = QuantizeRun(run="r", model=Source(uri="oci://r.example/m"), name="m", variant="v", precision="INT4",
                  output=Sink(repository="r.example/x"))  # fmt: skip


@pytest.mark.parametrize(("says", "writes"), [(False, WHOLE), (True, ()), (True, WHOLE[:1]), (True, WHOLE[1:])])
def test_a_conversion_without_a_model_is_a_failure_whatever_its_exit(
    olive: Callable[..., None], tmp_path: Path, says: bool, writes: tuple[str, ...]
) -> None:
    olive(says, *writes)
    with pytest.raises(RunFailed, match="Olive made no INT4 model") as failed:
        converting.convert(tmp_path / "model", RUN, tmp_path)
    assert failed.value.reason is Reason.CONVERSION_FAILED


def test_a_whole_model_is_one(olive: Callable[..., None], tmp_path: Path) -> None:
    olive(True, *WHOLE)
    folder = converting.convert(tmp_path / "model", RUN, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(WHOLE)

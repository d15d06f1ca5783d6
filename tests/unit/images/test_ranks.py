"""Which of the processes of a training has models measured."""

from pathlib import Path

import pytest

from slm_trainer.together import measures, training
from slmops.contract import Data, ExampleFormat, PullRun, Sink, Source, TrainRun

TRAINING = TrainRun(
    run="r",
    train=Data(source=Source(uri="oci://r.example/data:v1"), format=ExampleFormat.MESSAGES),
    output=Sink(repository="r.example/x"),
)


@pytest.mark.parametrize(("rank", "first"), [(None, True), ("0", True), ("1", False)])
def test_the_first_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str | None, first: bool) -> None:
    file = tmp_path / "run.json"
    file.write_text(TRAINING.model_dump_json())
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert training([str(file)]) == TRAINING
    assert measures() is first


@pytest.mark.parametrize("text", [PullRun(run="r", model_path="m").model_dump_json(), "{", ""])
def test_no_other_run_does_and_what_cannot_be_read_is_left_to_the_run(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.json"
    file.write_text(text)
    assert training([str(file)]) is None
    assert training([str(tmp_path / "missing")]) is None
    assert training([]) is None

"""A conversion is judged by what it made: Olive can end well, and with exit code 0, after it has made nothing, or half."""

import errno
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from slm_quantizer import olive as converting
from slmkit.run import PERMANENT, RunFailed
from slmops.contract import QuantizeRun, Reason, Sink, Source
from slmops.status.remedies import REMEDIES
from tests.unit.images.onnxbytes import GOOD, WEIGHTS, graph, model, node, outside

FILES = {
    "model.onnx": GOOD, "model.onnx.data": WEIGHTS,
    "genai_config.json": json.dumps({"model": {"decoder": {"filename": "model.onnx"}}, "search": {}}).encode(),
    "tokenizer.json": b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}',
}  # fmt: skip
"""A whole model."""
RUN = QuantizeRun(run="r", model=Source(uri="oci://r.example/m"), name="m", variant="v", precision="INT4",
                  output=Sink(repository="r.example/x"))  # fmt: skip
PASSES: dict[str, dict[str, Any]] = {"build": {"type": "ModelBuilder", "precision": "int4"}}
WANTED = ("model.onnx", "genai_config.json")
Olive = Callable[..., None]


class Result:
    """What Olive says at its end."""

    def __init__(self, good: bool) -> None:
        self._good = good

    def has_output_model(self) -> bool:
        return self._good


@pytest.fixture
def olive(monkeypatch: pytest.MonkeyPatch) -> Olive:
    """Olive, with what it says, writes and logs."""

    def behaves(files: dict[str, bytes], says: bool = True, error: Exception | None = None, ends: bool = False) -> None:
        def run(workflow: dict[str, Any]) -> Result:
            folder = Path(workflow["output_dir"])
            Path(workflow["cache_dir"]).mkdir()
            folder.mkdir()
            try:
                for name, content in files.items():
                    (folder / name).write_bytes(content)
                if error is not None:
                    raise error
            except Exception:
                logging.getLogger("olive.engine.engine").exception("Pass run failed.")
                if ends:
                    raise
                return Result(False)
            return Result(says)

        package, module = ModuleType("olive"), ModuleType("olive.workflows")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "olive", package)
        monkeypatch.setitem(sys.modules, "olive.workflows", module)
        monkeypatch.setattr(converting, "_fit_together", lambda: None)
        monkeypatch.setattr(converting, "validate", lambda described: None)  # that takes the real one

    return behaves


def convert(work: Path) -> Path:
    return converting.carry_out(work / "model", PASSES, work / "olive-INT4", WANTED, "INT4 model")


def failed(work: Path) -> RunFailed:
    """How the conversion fails; nothing of it is left then."""
    with pytest.raises(RunFailed) as error:
        convert(work)
    assert list(work.glob("olive*")) == []
    return error.value


def test_a_whole_model_is_one(olive: Olive, tmp_path: Path) -> None:
    olive(FILES)
    folder = convert(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name], "no cache is left"


def without(*names: str) -> dict[str, bytes]:
    return {name: content for name, content in FILES.items() if name not in names}


HALVES: dict[str, tuple[dict[str, bytes], bool, str]] = {
    "it says so": (FILES, False, "it says so itself"),
    "nothing": ({}, True, "there is no model.onnx"),
    "no graph": (without("model.onnx"), True, "there is no model.onnx"),
    "no configuration": (without("genai_config.json"), True, "there is no genai_config.json"),
    "no tokenizer": (without("tokenizer.json"), True, "there is no tokenizer (tokenizer.json or tokenizer.model)"),
    "no data": (without("model.onnx.data"), True, "model.onnx.data is not there"),
    "an empty graph": (FILES | {"model.onnx": b""}, True, "model.onnx is empty"),
    "an empty configuration": (FILES | {"genai_config.json": b""}, True, "genai_config.json is empty"),
    "an empty tokenizer": (FILES | {"tokenizer.json": b""}, True, "tokenizer.json is empty"),
    "empty data": (FILES | {"model.onnx.data": b""}, True, "model.onnx.data ends before the external data at 0"),
    "data that is cut off": (FILES | {"model.onnx.data": WEIGHTS[:-4]}, True, "model.onnx.data ends before"),
    "a graph that is cut off": (FILES | {"model.onnx": GOOD[:-2]}, True, "cut off, or forged"),
    "a graph of zeros": (FILES | {"model.onnx": bytes(100)}, True, "has a field 0, which is not known"),
    "a configuration that is cut off": (
        FILES | {"genai_config.json": FILES["genai_config.json"][:-3]}, True, "genai_config.json: not a JSON object"),
    "a tokenizer that is cut off": (FILES | {"tokenizer.json": b'{"model": '}, True, "tokenizer.json: not a JSON object"),
    "a configuration of another model": (
        FILES | {"genai_config.json": b'{"model": {"decoder": {"filename": "decoder.onnx"}}}'}, True,
        "decoder.onnx is not there"),
    "a configuration of no model": (FILES | {"genai_config.json": b'{"model": {}}'}, True, "names no model"),
    "operators that no runtime has": (
        FILES | {"model.onnx": model(graph([node("Fused", domain="olive.custom")]))}, True, "operator olive.custom.Fused"),
    "weights that are elsewhere": (
        FILES | {"model.onnx": model(graph((), [outside("w", [1], {"location": "/cache/x"})]))}, True,
        "'/cache/x' is no name"),
}  # fmt: skip


@pytest.mark.parametrize("half", HALVES)
def test_a_conversion_without_a_model_is_a_failure_whatever_its_exit(olive: Olive, tmp_path: Path, half: str) -> None:
    files, says, words = HALVES[half]
    olive(files, says)
    found = failed(tmp_path)
    assert found.reason is Reason.CONVERSION_FAILED
    assert found.message.startswith("Olive made no INT4 model of this one: ")
    assert words in found.message
    assert found.message.endswith("its own words are in the log")
    assert found.reason in PERMANENT
    assert REMEDIES[found.reason]


def test_what_olive_said_is_part_of_the_message(olive: Olive, tmp_path: Path) -> None:
    olive({}, error=KeyError("Unsupported\n precision " + "x" * 5000))
    found = failed(tmp_path)
    assert found.reason is Reason.CONVERSION_FAILED
    assert "Olive's last error: KeyError: 'Unsupported" in found.message
    assert len(found.message) < 600
    handlers = logging.getLogger("olive").handlers
    assert not any(type(handler).__name__ == "Heard" for handler in handlers), "nobody listens afterwards"


# --- a full disk


FULL = OSError(errno.ENOSPC, "No space left on device", "olive-INT4/model.onnx.data")


def raised_from(cause: Exception) -> Exception:
    error = RuntimeError("the pass failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error", [FULL, raised_from(FULL), RuntimeError("protobuf: No space left on device"), ValueError("(os error 28)")]
)
def test_a_full_disk_is_told_from_a_model_that_cannot_be_converted(
    olive: Olive, tmp_path: Path, error: Exception
) -> None:
    olive({"model.onnx": GOOD[:10]}, error=error)
    found = failed(tmp_path)
    assert (found.reason, found.message) == (Reason.DISK_FULL, f"no space left: {tmp_path / 'olive-INT4'}")
    assert found.reason not in PERMANENT, "there may be space later, or elsewhere"


def test_a_disk_that_is_full_afterwards_explains_half_a_model(
    olive: Olive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 1 << 30
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    olive(FILES | {"model.onnx.data": WEIGHTS[:5]})
    assert failed(tmp_path).reason is Reason.CONVERSION_FAILED
    free = 4096
    assert failed(tmp_path).reason is Reason.DISK_FULL


def test_an_error_that_olive_got_over_is_none(olive: Olive, tmp_path: Path) -> None:
    olive(FILES)
    from olive import workflows

    run = workflows.run
    logged = logging.getLogger("olive.telemetry")
    workflows.run = lambda workflow: (logged.error("No space left on device"), run(workflow))[1]
    assert convert(tmp_path).is_dir()


# --- and a real one, in a namespace of its own

SMALL = """
import os, subprocess, sys
from pathlib import Path
size, work = sys.argv[1:3]
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", work], check=True)
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""
BUILD = """
import json, logging, subprocess, sys
from pathlib import Path
from types import ModuleType
from slm_quantizer import olive as converting
from slmkit.run import Context, execute
from slmops.contract import QuantizeRun, Report
from tests.integration.images.test_olive import FILES, PASSES, WANTED, Result

work, configuration, raised = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def run(workflow):
    out = Path(workflow["output_dir"])
    out.mkdir()
    try:
        for name, content in (FILES | {"filler": bytes(3 << 20)}).items():
            (out / name).write_bytes(content)
    except Exception:
        logging.getLogger("olive.engine.engine").exception("Pass run failed.")
        return Result(False)
    return Result(True)

sys.modules["olive"], sys.modules["olive.workflows"] = ModuleType("olive"), ModuleType("olive.workflows")
sys.modules["olive.workflows"].run = run
converting._fit_together = lambda: None
converting.validate = lambda described: None

def handler(run, context):
    converting.carry_out(work / "model", PASSES, context.work / "olive-INT4", WANTED, "INT4 model")
    return Report(outcome="Succeeded")

def attempt():
    report = execute({QuantizeRun: handler}, [configuration], Context(work))
    left = sorted(path.name for path in work.iterdir())
    print(json.dumps([report.outcome, report.reason, report.message, left]))

attempt()
subprocess.run(["mount", "-o", f"remount,size={raised}", str(work)], check=True)
attempt()
"""
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


def test_a_disk_that_fills_in_the_middle_of_a_build_is_a_clean_failure_and_with_more_space_it_goes_on(
    tmp_path: Path,
) -> None:
    work, configuration = tmp_path / "work", tmp_path / "run.json"
    work.mkdir()
    configuration.write_text(RUN.model_dump_json())
    if subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody have namespaces of their own")
    for name, text in (("small.py", SMALL), ("build.py", BUILD)):
        (tmp_path / name).write_text(text)
    build = [str(tmp_path / "build.py"), str(work), str(configuration), "16m"]
    done = subprocess.run(
        [*UNSHARE, sys.executable, str(tmp_path / "small.py"), "2m", str(work), *build],
        check=False, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert first == ["Failed", "DiskFull", f"no space left: {work / 'olive-INT4'}", []]
    assert second == ["Succeeded", None, "", ["olive-INT4"]]

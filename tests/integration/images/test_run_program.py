"""A run as a process: its exit code, the page with its progress, signals, and its log."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from slmops.contract import Reason, Report

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
import time
from slmkit import run as running
from slmkit.run import RunFailed, main
from slmops.contract import PullRun, Reason, Report

def handler(run, context):
    if run.model_path == "fail":
        raise RunFailed(Reason.UNSAFE_SOURCE, "x")
    if run.model_path == "crash":
        raise ValueError("x")
    if run.model_path == "wait":
        context.stage("Reading", of=7)
        context.step(3)
        print("waiting", flush=True)
        assert context.stopping.wait(60)
        context.check()
    if run.model_path == "load":
        print("waiting", flush=True)
        time.sleep(60)
    return Report(outcome="Succeeded")

if '"load"' in open(sys.argv[1]).read():
    running.MARGIN = 29.9
sys.exit(main({PullRun: handler}))
"""


def program(tmp_path: Path, path: str, port: int) -> "subprocess.Popen[str]":
    (tmp_path / "run.json").write_text(json.dumps({"type": "Pull", "run": "r", "model_path": path}))
    env = {
        "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'images/kit'}", "TERMINATION_PATH": str(tmp_path / "termination-log"),
        "PROGRESS_PORT": str(port), "PATH": os.environ["PATH"],
    }  # fmt: skip
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run.json")]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("path", "code", "outcome"), [("fine", 0, "Succeeded"), ("fail", 3, "Failed"), ("crash", 1, "Failed")]
)
def test_the_exit_code_says_whether_to_try_again(tmp_path: Path, path: str, code: int, outcome: str) -> None:
    with socket.socket() as taken:  # a port that is taken costs the page, not the run
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with program(tmp_path, path, taken.getsockname()[1]) as process:
            out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert Report.model_validate_json((tmp_path / "termination-log").read_bytes()).outcome == outcome
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["outcome"] for line in lines if line["message"] == "report"] == [outcome], "a line of JSON each"


def test_while_it_runs_it_shows_its_progress_and_on_sigterm_it_ends_with_a_report(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with program(tmp_path, "wait", port) as process:
        assert process.stdout is not None
        assert any(line.strip() == "waiting" for line in process.stdout)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/progress", timeout=60) as answer:
            progress = json.load(answer)
        with pytest.raises(urllib.error.HTTPError, match="404") as missing:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/etc/passwd", timeout=60)
        missing.value.close()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert (progress["stage"], progress["step"], progress["of"]) == ("Reading", 3, 7)
    report = Report.model_validate_json((tmp_path / "termination-log").read_bytes())
    assert (report.reason, process.returncode) == (Reason.TERMINATED, 143)


def test_who_looks_at_nothing_when_told_to_stop_ends_before_the_kubelet_kills_it(tmp_path: Path) -> None:
    """A library that loads or converts a model; a kill would be exit code 137, which counts as a failure."""
    with program(tmp_path, "load", 0) as process:
        assert process.stdout is not None
        assert any(line.strip() == "waiting" for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    report = Report.model_validate_json((tmp_path / "termination-log").read_bytes())
    assert (report.reason, process.returncode) == (Reason.TERMINATED, 143)


def test_a_run_that_is_told_to_stop_while_it_imports_ends_at_once_and_has_not_failed() -> None:
    code = (
        "from slmkit.stop import stoppable; import signal; stoppable(); print('importing', flush=True); signal.pause()"
    )
    env = {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'images/kit'}", "PATH": os.environ["PATH"]}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143


def test_logs_are_lines_of_json_whatever_is_in_them() -> None:
    from slmkit.lines import Lines

    record = logging.LogRecord("x", logging.INFO, "f", 1, "a %s\n{", ("\udc80",), None)
    record.stage = {"un", "serializable"}
    line = Lines().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "a \udc80\n{"


WHERE = """
import ast, importlib.util, sys
from {package}.__main__ import RUNS
heavy = {{"torch", "transformers", "onnx", "olive", "optuna", "matplotlib"}} & set(sys.modules)
assert not heavy, heavy
for place in RUNS.values():
    module, _, function = place.partition(":")
    with open(importlib.util.find_spec(module).origin) as source:
        names = {{each.name for each in ast.parse(source.read()).body if isinstance(each, ast.FunctionDef)}}
    assert function in names, place
"""


@pytest.mark.parametrize("package", ["slm_bench", "slm_quantizer", "slm_trainer"])
def test_each_run_of_an_image_is_where_it_is_said_to_be_and_nothing_heavy_is_loaded_before_it(package: str) -> None:
    subprocess.run([sys.executable, "-c", WHERE.format(package=package)], check=True, env=os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip

"""Two processes that train together make what one makes of the same batches; and they end together."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from slm_trainer import distributed
from slm_trainer.batch import Batch
from slm_trainer.distributed import Group, Ranks, lost_is_told
from slm_trainer.losses import IGNORED
from slmkit.run import RunFailed
from slmops.contract import Reason
from tests.unit.images.ranks import main

ROOT = Path(__file__).parents[3]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def together(
    folder: Path, ranks: int, die: dict[int, int] | None = None, stop: dict[int, int] | None = None, **settings: Any
) -> list[int]:
    """Train in so many processes; their exit codes. ``die``, ``stop``: the batch at which a rank is killed, or told to
    stop."""
    folder.mkdir(exist_ok=True)
    port, made = str(free_port()), []
    for rank in range(ranks):
        named = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": port, "USE_LIBUV": "0", "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
        ends = {"die_at": (die or {}).get(rank), "stop_at": (stop or {}).get(rank)}
        told = json.dumps(settings | ends)
        made.append(subprocess.Popen([sys.executable, "-m", "tests.unit.images.ranks", str(folder), told], cwd=ROOT,
                                     env=os.environ | named, stderr=subprocess.PIPE, text=True))  # fmt: skip
    for process in made:
        process.communicate(timeout=120)
    return [int(process.returncode) for process in made]


def outcome(folder: Path, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"rank-{rank}.json").read_text())
    return found


def one(folder: Path, **settings: Any) -> dict[str, Any]:
    """What one process makes of it."""
    folder.mkdir(exist_ok=True)
    assert main(folder, settings) == 0
    return outcome(folder)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process makes of the usual."""
    return one(tmp_path_factory.mktemp("alone"))


def test_a_group_has_the_loss_and_the_weights_of_one(tmp_path: Path, alone: dict[str, Any]) -> None:
    assert together(tmp_path, 2) == [0, 0]
    found = [outcome(tmp_path, rank) for rank in range(2)]
    for mine in found:
        assert mine["curve"] == pytest.approx(alone["curve"], abs=1e-5)
        assert mine["weights"] == pytest.approx(alone["weights"], abs=1e-4)
    assert sum(mine["rows"] for mine in found) == alone["rows"], "each row is seen by one of them"
    assert max(mine["rows"] for mine in found) < alone["rows"]


@pytest.mark.parametrize("settings", [
    {"gradient_accumulation": 3, "batch_size": 5, "max_steps": 12},
    {"batch_size": 2, "max_steps": 9, "records": 9},  # fewer rows than processes, and one row in the last batch
])  # fmt: skip
def test_three_make_the_same_of_steps_of_any_shape(tmp_path: Path, settings: dict[str, Any]) -> None:
    expected = one(tmp_path / "one", **settings)
    assert together(tmp_path / "three", 3, **settings) == [0, 0, 0]
    found = outcome(tmp_path / "three")
    assert found["curve"] == pytest.approx(expected["curve"], abs=1e-5)
    assert found["weights"] == pytest.approx(expected["weights"], abs=1e-4)


def test_a_process_without_a_row_spoils_nothing_in_half_precision(tmp_path: Path) -> None:
    """Logits of a large model add up to more than 16 bits hold."""
    settings = {"precision": "FP16", "batch_size": 2, "max_steps": 9, "records": 9, "bias": 20000.0}
    assert together(tmp_path, 3, **settings) == [0, 0, 0]
    assert all(math.isfinite(loss) for loss in outcome(tmp_path)["curve"])


@pytest.mark.parametrize("records", [24, 9])  # of nine, the last batch of an epoch has one pair for two processes
def test_pairs_of_answers_stay_together_in_a_group(tmp_path: Path, records: int) -> None:
    settings = {"paired": True, "records": records, "batch_size": 4, "gradient_accumulation": 2, "max_steps": 12}
    expected = one(tmp_path / "one", **settings)
    assert together(tmp_path / "two", 2, **settings) == [0, 0]
    found = [outcome(tmp_path / "two", rank) for rank in range(2)]
    for mine in found:
        assert mine["curve"] == pytest.approx(expected["curve"], abs=1e-5)
        assert mine["weights"] == pytest.approx(expected["weights"], abs=1e-4)
    assert sum(mine["rows"] for mine in found) == expected["rows"]


@pytest.mark.parametrize("lost", [0, 1])
def test_who_loses_another_is_interrupted_and_all_go_on_from_the_checkpoint(
    tmp_path: Path, alone: dict[str, Any], lost: int
) -> None:
    kept = {"checkpoint": {"every_steps": 5, "keep": 2}}
    codes = together(tmp_path, 2, {lost: 13}, **kept)
    assert codes[lost] == -9
    assert codes[1 - lost] == 143, "it did not fail by itself"
    assert together(tmp_path, 2, **kept) == [0, 0]
    found = outcome(tmp_path)
    assert found["resumes"] == 1
    assert len(found["curve"]) == 20
    assert found["curve"] == pytest.approx(alone["curve"][10:], abs=1e-5)
    assert found["weights"] == pytest.approx(alone["weights"], abs=1e-4)


@pytest.mark.parametrize("stop", [{0: 13}, {1: 13}, {1: 13, 0: 14}])
def test_all_stop_after_the_same_step_and_nothing_is_lost(
    tmp_path: Path, alone: dict[str, Any], stop: dict[int, int]
) -> None:
    """Pods are told one after the other, and a drain tells one of them alone."""
    kept = {"checkpoint": {"every_steps": 5, "keep": 2}}
    assert together(tmp_path, 2, stop=stop, **kept) == [143, 143]
    assert (tmp_path / "checkpoints" / "step-000000013").is_dir()
    assert together(tmp_path, 2, **kept) == [0, 0]
    found = outcome(tmp_path)
    assert (found["resumes"], found["lost"]) == (1, 0)
    assert found["curve"] == pytest.approx(alone["curve"][13:], abs=1e-5)


# --- the launcher ----------------------------------------------------------------------------------------------------

LAUNCHED = """
import sys
from slm_trainer import launch
from slmops.contract import TrainRun
launch.processes = lambda: 2
run = TrainRun.model_validate_json(sys.argv[1])
sys.exit(launch.launch(run, *sys.argv[2:]))
"""
RUN = json.dumps({
    "type": "Train", "run": "toy", "train": {"source": {"uri": "oci://registry.example/data:v1"}, "format": "Messages"},
    "output": {"repository": "registry.example/out"},
})  # fmt: skip


def launched(folder: Path, *command: str) -> int:
    """The exit code of a pod with two processes."""
    named = {"USE_LIBUV": "0", "GLOO_SOCKET_IFNAME": "lo", "TERMINATION_PATH": str(folder / "report"),
             "WORK_DIR": str(folder)}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", LAUNCHED, RUN, *command], cwd=ROOT, env=os.environ | named, check=False,
                          stderr=subprocess.PIPE, text=True)  # fmt: skip
    return done.returncode


def test_the_launcher_starts_a_group_that_learns_what_one_learns(tmp_path: Path, alone: dict[str, Any]) -> None:
    assert launched(tmp_path, "-m", "tests.unit.images.ranks", str(tmp_path), "{}") == 0
    assert outcome(tmp_path)["curve"] == pytest.approx(alone["curve"], abs=1e-5)


@pytest.mark.parametrize(
    ("program", "code", "reason"),
    [
        ("import sys; sys.exit(3)", 3, None),
        ("import sys; sys.exit(143)", 143, None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137, "OutOfMemory"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143, None),
        ("import os; os.abort()", 134, "InternalError"),
    ],
)
def test_the_pod_ends_as_its_process_did(tmp_path: Path, program: str, code: int, reason: str | None) -> None:
    assert launched(tmp_path, "-c", program) == code
    report = tmp_path / "report"
    assert (json.loads(report.read_text())["reason"] if report.exists() else None) == reason


ENDED = """
import os, sys, time
import slm_trainer.__main__  # which says where a process leaves its report
from slmkit.reporting import write_report
from slmops.contract import Report
if os.environ["LOCAL_RANK"] == "1":
    write_report(Report(outcome="Failed", reason=sys.argv[1], message="of its own"))
    sys.exit(int(sys.argv[2]))
while not os.path.exists(os.path.join(os.path.dirname(os.environ["TERMINATION_PATH"]), "report-1.json")):
    time.sleep(0.05)
write_report(Report(outcome="Failed", reason="Terminated", message="another pod of the group was lost"))
sys.exit(143)
"""


@pytest.mark.parametrize(("reason", "code"), [("InvalidData", 3), ("OutOfMemory", 1), ("Terminated", 143)])
def test_whichever_process_of_a_pod_has_a_reason_of_its_own_the_pod_tells_it(
    tmp_path: Path, reason: str, code: int
) -> None:
    """The first one loses the other, and may end before the launcher looks."""
    assert launched(tmp_path, "-c", ENDED, reason, str(code)) == code
    told = json.loads((tmp_path / "report").read_text())
    assert (told["reason"], told["message"]) == (reason, "of its own")


DONE = """
import os
import slm_trainer.__main__
from slmkit.reporting import write_report
from slmops.contract import Report
write_report(Report(outcome="Succeeded", seconds=7 if os.environ["LOCAL_RANK"] == "0" else 8))
"""


def test_the_first_process_of_a_pod_speaks_for_all_that_ended_well(tmp_path: Path) -> None:
    assert launched(tmp_path, "-c", DONE) == 0
    assert json.loads((tmp_path / "report").read_text()) == {"outcome": "Succeeded", "seconds": 7}


@pytest.mark.parametrize(("rank", "folder"), [("0", "/w"), ("1", "/w/process-1")])
def test_each_process_of_a_pod_works_in_a_folder_of_its_own(rank: str, folder: str) -> None:
    code = "import slm_trainer.__main__, os; print(os.environ['WORK_DIR'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True,
                          env=os.environ | {"LOCAL_RANK": rank, "WORK_DIR": "/w"})  # fmt: skip
    assert done.stdout.split() == [folder], done.stderr


SLOW = """
import os, pathlib, signal, sys, time

def end(*_):
    time.sleep(1)
    pathlib.Path(sys.argv[1]).write_text("kept")
    sys.exit(143)

signal.signal(signal.SIGTERM, end)
os.write(1, b"ready\\n")  # in one piece: two of these share the pipe
time.sleep(60)
"""


@pytest.mark.parametrize(("margin", "kept"), [(5, True), (30, False)], ids=["the pod's time", "none"])
def test_processes_that_are_told_to_stop_have_as_long_as_the_pod(tmp_path: Path, margin: int, kept: bool) -> None:
    script = LAUNCHED.replace("run = ", f"launch.MARGIN = {margin}; run = ")
    named = {"USE_LIBUV": "0", "GLOO_SOCKET_IFNAME": "lo", "TERMINATION_PATH": str(tmp_path / "report")}
    command = [sys.executable, "-c", script, RUN, "-c", SLOW, str(tmp_path / "checkpoint")]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | named, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as pod:  # fmt: skip
        assert pod.stdout is not None
        assert [pod.stdout.readline(), pod.stdout.readline()] == ["ready\n", "ready\n"]
        pod.send_signal(signal.SIGTERM)
        pod.communicate(timeout=60)
    assert pod.returncode == 143
    assert (tmp_path / "checkpoint").exists() is kept


# --- one process' part -----------------------------------------------------------------------------------------------


def ranks_of(rank: int, size: int) -> Ranks:
    """A group that nobody has to join: to ask what would be whose."""
    found = Ranks.__new__(Ranks)
    found.rank, found.size = rank, size
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_row_is_somebodys_and_nobody_elses(size: int) -> None:
    tokens = torch.arange(20).reshape(5, 4)
    batch = Batch.of(tokens, torch.ones_like(tokens), tokens)
    parts = [ranks_of(rank, size).share(batch) for rank in range(size)]
    rows = sorted(row.tolist() for part in parts if part.answered for row in part.tokens)
    assert rows == tokens.tolist()
    assert sum(part.answered for part in parts) == batch.answered
    for part in parts[5:]:
        assert len(part.tokens) == 1
        assert (part.labels == IGNORED).all()


def test_one_alone_does_all_of_it() -> None:
    tokens = torch.arange(4).reshape(2, 2)
    batch = Batch.of(tokens, torch.ones_like(tokens), tokens)
    group = Group()
    assert group.share(batch) is batch
    assert group.wrapped(tokens) is tokens
    assert group.total(2.5, True) == (2.5, True)
    assert group.leads


class Store:
    """A store that the leader leaves a word in once it was looked at so many times."""

    def __init__(self, late: int) -> None:
        self.late, self.words = late, dict[str, str]()

    def check(self, words: list[str]) -> bool:
        self.late -= 1
        return self.late < 0 or all(word in self.words for word in words)

    def set(self, word: str, value: str) -> None:
        self.words[word] = value


class Patient(threading.Event):
    """Time passes at once. ``ends``: how often it is waited for before the pod is told to stop."""

    def __init__(self, ends: int = 10**9) -> None:
        super().__init__()
        self.ends, self.waited = ends, 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.waited += timeout or 0.0
        if self.waited > self.ends:
            self.set()
        return self.is_set()


def test_the_others_wait_for_the_leaders_first_measurement_for_longer_than_an_exchange_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, stopping = Store(late=7200), Patient()
    monkeypatch.setattr(distributed, "_store", lambda: store)
    ranks_of(1, 2).assemble(stopping)
    assert stopping.waited > distributed.WAIT.total_seconds()
    assert store.words == {}
    ranks_of(0, 2).assemble(Patient())
    assert store.words == {distributed.READY: "1"}


def test_who_waits_for_the_leader_ends_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_store", lambda: Store(late=100))
    with pytest.raises(RunFailed) as failed:
        ranks_of(1, 2).assemble(Patient(ends=5))
    assert failed.value.reason is Reason.TERMINATED


def test_a_group_is_assembled_before_its_first_exchange(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done: list[str] = []
    for name in ("assemble", "agree", "wrapped"):
        monkeypatch.setattr(Group, name, lambda self, *given, name=name: done.append(name) or given[0])
    main(tmp_path, {"max_steps": 1})
    assert done == ["assemble", "agree", "wrapped"]


def test_an_error_of_ones_own_is_not_taken_for_a_lost_pod() -> None:
    with pytest.raises(RuntimeError, match="shapes"), lost_is_told():
        raise RuntimeError("shapes do not fit")
    with pytest.raises(RunFailed) as failed, lost_is_told():
        raise torch.distributed.DistNetworkError("the client socket has failed to connect")
    assert failed.value.reason is Reason.TERMINATED

"""A labelling process that is killed in the middle, as the kernel does it, and its successor on the same volume."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from slmkit.data import Example, write_messages
from slmops.contract import DATASET_TYPE, Sink
from tests.unit.images.fakellm import FakeLLM, Reply, served
from tests.unit.images.fakeregistry import FakeRegistry

PROMPTS, CONCURRENCY, BEFORE = 40, 4, 15
MAIN = "from slmkit.run import main; from slm_trainer.label import endpoint, label; " \
       "from slmops.contract import LabelRun; endpoint.backoff = lambda attempt: 0.01; " \
       "raise SystemExit(main({LabelRun: label}))"  # fmt: skip
"""The pauses between attempts are real time, so they are short."""
TROUBLE = (Reply(status=429), Reply(status=500), Reply(body=b"{half"), Reply(body=b'{"choices": []}'),
           Reply("an answer that breaks off", cut=40), Reply(cut=0), None)  # fmt: skip


class Teacher(FakeLLM):
    """Each prompt meets a trouble of its own first; and after so many answers nobody gets one, until released."""

    def __init__(self) -> None:
        super().__init__(self.say)
        self.before: int | None = BEFORE
        self.held = 0

    def say(self, text: str, time: int) -> Reply:
        if self.before is not None and self.answered.total() >= self.before:
            self.held += 1
            return Reply(delay=3600)
        trouble = TROUBLE[int(text) % len(TROUBLE)]
        return trouble if trouble and time == 1 else Reply(f"answer {text}")


def pod(folder: Path, name: str, run: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A process like that of a pod, on a volume that all of them share."""
    work = folder / name
    work.mkdir()
    (folder / "state").mkdir(exist_ok=True)
    (work / "run.json").write_text(json.dumps(run))
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "WORK_DIR": str(work), "STATE_DIR": str(folder / "state"),
                   "TERMINATION_PATH": str(work / "report"), "PROGRESS_PORT": "0"}  # fmt: skip
    command = [sys.executable, "-c", MAIN, str(work / "run.json")]
    return subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)


def test_no_prompt_is_asked_again_once_it_was_answered(tmp_path: Path, registry: FakeRegistry) -> None:
    data = tmp_path / "train.jsonl"
    write_messages(data, (Example(({"role": "user", "content": str(i)},), None) for i in range(PROMPTS)))
    sink = Sink(repository=f"{registry.host}/slm/prompts")
    made = registry.client().push_artifact(sink, {data.name: data}, DATASET_TYPE, {})
    teacher = Teacher()
    run = {
        "type": "Label", "run": "r", "registry": registry.settings.model_dump(), "validation_split": 0.0,
        "output": {"repository": f"{registry.host}/slm/labelled"},
        "train": {"source": {"uri": f"oci://{made.reference}"}, "format": "Messages"},
        "endpoint": {"url": f"{teacher.url}/v1", "model": "m", "concurrency": CONCURRENCY, "retries": 9},
    }  # fmt: skip
    with served(teacher):
        first = pod(tmp_path, "first", run)
        deadline = time.monotonic() + 120
        while teacher.held < CONCURRENCY:
            assert first.poll() is None, "the first pod ended by itself"
            assert time.monotonic() < deadline, "the first pod does not get there"
            time.sleep(0.05)
        known, begun = set(teacher.answered), len(teacher.asked)
        first.send_signal(signal.SIGKILL)
        first.wait()
        teacher.before = None
        assert pod(tmp_path, "second", run).wait(120) == 0
    again = {body["messages"][-1]["content"] for _, body in teacher.asked[begun:]}
    assert len(known) >= BEFORE
    assert known.isdisjoint(again), "asked again, and paid again"
    assert teacher.answered == dict.fromkeys(map(str, range(PROMPTS)), 1)
    counts = json.loads((tmp_path / "second" / "report").read_text())["dataset"]
    assert (counts["labelled"], counts["kept"], counts["reused"]) == (PROMPTS, PROMPTS, len(known))
    assert (counts["prompt_tokens"], counts["completion_tokens"]) == (PROMPTS, 2 * PROMPTS)

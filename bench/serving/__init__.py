"""``python -m bench serving``: the runtime of edge nodes beside the plain loop and beside Foundry Local's own server.

Two models are made on the spot, one as the demo's student and one of 28 million parameters; both in INT4, on one thread of
the runtime. All that is compared runs on this machine in one environment of pinned packages, with no cluster, and takes
turns, so that a machine that is busy with something else is so for all.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, Any

from bench.figures import Figure
from bench.place import free_port
from bench.process import Process
from bench.serving import load
from demo.steps import ROOT
from tests import pinned

HERE = Path(__file__).parent
NAME = "made"
TOKENS, CLIENTS, ROUNDS = 32, 8, 7
MODELS = {
    "the demo's student": ((1023, 128, 384, 2, 4, 2), 240),
    "28 million parameters": ((4095, 512, 1536, 8, 8, 2), 32),
}
"""Shape (``model.Shape``), and requests a round; a multiple of the clients."""
SHARE = 0.9
PLACES = ("operator", "images/kit", "images/edge")


@dataclass
class Round:
    """Requests a second of each, and seconds of the processor for a request."""

    rates: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)


def run() -> list[Figure]:
    """Measure."""
    figures = []
    for name, (shape, requests) in MODELS.items():
        rounds = []
        with tempfile.TemporaryDirectory() as place, contenders(Path(place), shape, requests) as measure:
            for number in range(ROUNDS + 1):  # the first is to warm up
                turn = sorted(measure, reverse=number % 2 == 0)
                found = Round()
                for way in turn:
                    found.rates[way], found.cpu[way] = measure[way]()
                if number:
                    rounds.append(found)
                    told = ", ".join(f"{way} {rate:.1f}" for way, rate in sorted(found.rates.items()))
                    print(f"serving, {name}, round {number}, requests/s: {told}", flush=True)
        figures += judge(name, rounds)
    return figures


def judge(name: str, rounds: list[Round]) -> list[Figure]:
    """The medians over the rounds of what each round compares."""

    def rate(way: str) -> float:
        return median(each.rates[way] for each in rounds)

    def share(ours: str, theirs: str) -> float:
        return median(each.rates[ours] / each.rates[theirs] for each in rounds)

    def told(ours: str, theirs: str) -> str:
        return f"{rate(ours):.1f} against {rate(theirs):.1f} requests/s: {share(ours, theirs):.2f}x"

    cpu = {way: 1000 * median(each.cpu[way] for each in rounds) for way in rounds[0].cpu}
    one, many = "ours, 1", f"ours, {CLIENTS}"
    return [
        Figure(f"{name}: one client", f"at least {SHARE} of the plain loop's", told(one, "loop"),
               share(one, "loop") >= SHARE),
        Figure(f"{name}: {CLIENTS} clients", "above Foundry Local", told(many, f"foundry, {CLIENTS}"),
               share(many, f"foundry, {CLIENTS}") > 1),
        Figure("one client against Foundry Local", "", told(one, "foundry, 1")),
        Figure(f"{CLIENTS} clients against one", "", told(many, one)),
        Figure("the library's Engine against its plain loop", "", told("engine", "loop")),
        Figure("processor time of a request: loop, one client, eight; Foundry Local", "",
               ", ".join(f"{cpu[way]:.1f}" for way in ("loop", one, many)) +
               f"; {cpu['foundry, 1']:.1f}, {cpu[f'foundry, {CLIENTS}']:.1f} ms"),
    ]  # fmt: skip


@contextmanager
def contenders(
    place: Path, shape: tuple[int, ...], requests: int
) -> Iterator[dict[str, Callable[[], tuple[float, float]]]]:
    """All that is measured, running, by name: a call measures once."""
    python = str(pinned.python(HERE / "constraints.txt"))
    folder = place / "cache" / NAME
    subprocess.run([python, HERE / "model.py", folder, NAME, *map(str, shape)], check=True)
    questions = [f"open the east gate at {number // 60 % 24:02}:{number % 60:02}" for number in range(requests)]
    ports = {"ours": free_port(), "foundry": free_port()}
    run = place / "run.json"
    run.write_text(json.dumps({"model_name": NAME, "model_path": str(folder), "port": ports["ours"]}))
    (place / "sdk").mkdir()
    ours = Process("the runtime", [python, "-m", "slm_edge", str(run)], {
        "PYTHONPATH": ":".join(str(ROOT / each) for each in PLACES), "TERMINATION_PATH": str(place / "termination"),
    }, place / "ours.log")  # fmt: skip
    foundry = Process("Foundry Local", [python, str(HERE / "foundry.py"), str(place / "cache"), str(place / "sdk"),
                                        str(ports["foundry"]), NAME], {}, place / "foundry.log")  # fmt: skip
    with ExitStack() as stack:
        loops = {name: stack.enter_context(Loop(python, HERE / program, folder, questions))
                 for name, program in (("loop", "raw.py"), ("engine", "batching.py"))}  # fmt: skip
        ways: dict[str, Callable[[], tuple[float, float]]] = {name: loop.measure for name, loop in loops.items()}
        for server, process, path, model in (
            ("ours", ours, "/ready", NAME),
            ("foundry", foundry, "/v1/models", f"{NAME}:1"),
        ):
            stack.enter_context(process)
            await_up(process, ports[server], path)
            body = {"model": model, "max_tokens": TOKENS, "temperature": 0}
            asked = [load.post(ports[server], body | {"messages": [{"role": "user", "content": question}]})
                     for question in questions]  # fmt: skip
            for clients in (1, CLIENTS):
                ways[f"{server}, {clients}"] = serving(process, ports[server], asked, clients)
        yield ways


def serving(process: Process, port: int, asked: list[bytes], clients: int) -> Callable[[], tuple[float, float]]:
    """How a server is measured."""

    def measure() -> tuple[float, float]:
        process.check()
        spent = process.cpu()
        rate = load.requests_a_second(port, asked, clients, TOKENS)
        return rate, (process.cpu() - spent) / len(asked)

    return measure


def await_up(process: Process, port: int, path: str) -> None:
    """Until the server answers."""
    ends = time.monotonic() + 60
    while not load.up(port, path):
        process.check()
        if time.monotonic() > ends:
            raise TimeoutError(f"{process.name} does not answer")
        time.sleep(0.1)


class Loop:
    """A program that answers what it reads, line by line (``raw.py``)."""

    def __init__(self, python: str, program: Path, folder: Path, questions: list[str]) -> None:
        self._command = [python, str(program), str(folder), str(TOKENS)]
        self._line = json.dumps([f"<|user|>{question}<|assistant|>" for question in questions]) + "\n"

    def __enter__(self) -> "Loop":
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def measure(self) -> tuple[float, float]:
        """Requests a second, and seconds of the processor for a request."""
        stdin: IO[str] | None = self._process.stdin
        assert stdin is not None
        stdin.write(self._line)
        stdin.flush()
        found = self._read()
        return found["rate"], found["cpu"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"{self._command[1]} ended with {self._process.wait()}")
        return dict(json.loads(line))

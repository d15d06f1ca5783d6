"""``python -m bench image``: what publishing a model image costs in time, in memory and on the wire.

A model folder of 2 GB of random bytes is published to the local cluster's registry program, here on its own, by the code
that quantizers use. The measure is a copy of the same files on the same disk and their SHA-256, in processor time of the
one process and of the other. The time on the clock is shown beside it: the registry takes its part of the same machine,
and counts the digest once more. Memory is that of the process above one that only imports the same.

On the wire it is a small model that is published twice, then with one of its adapters changed, and fetched with ``oras``
by somebody who has what it was before and, like a node, fetches what is lacking. All of it goes through a relay that
counts.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.figures import Figure, mb
from bench.place import free_port
from bench.process import Process
from bench.pushing import ADAPTERS, MODEL, REPOSITORY
from bench.relay import Relay
from demo.steps import wait_for
from tests.cluster import binaries

LARGE, SMALL, ADAPTER = 2_000_000_000, 100_000_000, 20_000_000
"""Bytes of weights, for time and memory and for the wire, and of each of two adapters."""
ROUNDS = 3
SLOWER = 1.3
MORE = 64e6
"""Bytes of memory."""
TALK = 20_000
"""Bytes of requests, answers and manifests: what a push that moves nothing may send."""
OVERHEAD = 1.05


class Took(NamedTuple):
    """Seconds on the clock, and of the processor for the process that does it."""

    clock: float
    processor: float


@dataclass(frozen=True)
class Measured:
    """What was measured."""

    copies: list[Took]
    """Copying and counting, a round each, …"""
    pushes: list[Took]
    """… publishing into a new repository, …"""
    known: list[Took]
    """… and into one that is not, where the digest is counted before."""
    alone: int
    """Bytes of memory of the process that does nothing, …"""
    pushing: int
    """… and of the one that publishes, at most."""
    again: int
    """Bytes that a second push sends."""
    changed: int
    """Bytes that a push sends of which one adapter is new, …"""
    pulled: int
    """… and that somebody fetches who has the image of before."""


def run() -> list[Figure]:
    """Generate, publish, compare. Needs 6 GB of disk for a few minutes."""
    programs()
    with tempfile.TemporaryDirectory(prefix="slmops-bench-image-") as folder:
        return judge(measure(Path(folder)))


def programs() -> None:
    """Build the registry, and who fetches from it."""
    binaries.build(*(program for program in binaries.PROGRAMS if program.name == "registry"), binaries.ORAS)


def judge(found: Measured) -> list[Figure]:
    """The figures."""
    copied, pushed, known = (_median(found.copies), _median(found.pushes), _median(found.known))
    ratio, memory = pushed.processor / copied.processor, found.pushing - found.alone
    return [
        Figure("processor time to publish 2 GB", f"at most {SLOWER}x that of a copy and SHA-256",
               f"{pushed.processor:.2f} against {copied.processor:.2f} s: {ratio:.2f}x", ratio <= SLOWER),
        Figure("the same where the repository is not new", "", _times(known.processor, copied.processor)),
        Figure("time on the clock, with the registry's part", "", _times(pushed.clock, copied.clock)),
        Figure("the same where the repository is not new", "", _times(known.clock, copied.clock)),
        Figure("memory to publish 2 GB", f"at most {MORE / 1e6:.0f} MB above the runtime's",
               f"{mb(found.pushing)} against {mb(found.alone)}: {mb(memory)} more", memory <= MORE),
        Figure("bytes that a second push sends", f"at most {TALK / 1e6:.2f} MB: requests and manifests",
               f"{found.again / 1e6:.3f} MB", found.again <= TALK),
        share("bytes that a push with one new adapter sends", found.changed, ADAPTER),
        share("bytes that a pull with one new adapter fetches", found.pulled, ADAPTER),
    ]  # fmt: skip


def _median(rounds: list[Took]) -> Took:
    return Took(statistics.median(t.clock for t in rounds), statistics.median(t.processor for t in rounds))


def _times(seconds: float, against: float) -> str:
    return f"{seconds:.2f} against {against:.2f} s: {seconds / against:.2f}x"


def share(name: str, moved: int, adapter: int) -> Figure:
    """Bytes that went over the wire against those of the adapter that has changed."""
    ratio = moved / adapter
    return Figure(name, f"at most {OVERHEAD}x the adapter's", f"{mb(moved)} for {mb(adapter)}: {ratio:.3f}x",
                  ratio <= OVERHEAD)  # fmt: skip


def measure(folder: Path) -> Measured:
    """All of it."""
    files = folder / "files"
    generate(files, LARGE)
    copies: list[Took] = []
    pushes: list[Took] = []
    known: list[Took] = []
    alone = pushing = 0
    for number in range(ROUNDS):
        copies.append(_took(_child("copy", files)))
        with registry(folder) as port:
            pushed = _child("push", files, f"127.0.0.1:{port}")
        with registry(folder) as port:
            _child("prepare", files, f"127.0.0.1:{port}")
            known.append(_took(_child("push", files, f"127.0.0.1:{port}")))
        nothing = _child("nothing", files)
        pushes.append(_took(pushed))
        alone, pushing = max(alone, int(nothing["peak"])), max(pushing, int(pushed["peak"]))
        print(f"image: round {number + 1}: copied in {copies[-1].clock:.1f} s, published in {pushes[-1].clock:.1f} s with "
              f"{mb(pushed['peak'])}", flush=True)  # fmt: skip
    shutil.rmtree(files)
    generate(files, SMALL)
    moved = wire(folder, files, lambda: (files / ADAPTERS / "second.bin").write_bytes(os.urandom(ADAPTER)))
    return Measured(copies, pushes, known, alone, pushing, *moved)


def wire(folder: Path, files: Path, change: Callable[[], object]) -> tuple[int, int, int]:
    """Bytes that a second push of the files sends, that a push after a change of them sends, that a pull then fetches."""
    held = folder / "held"
    with registry(folder) as port:
        _child("push", files, f"127.0.0.1:{port}")
        _pull(port, held)
        with Relay(port) as relay:
            _child("push", files, f"127.0.0.1:{relay.port}")
            again = relay.sent
        change()
        with Relay(port) as relay:
            _child("push", files, f"127.0.0.1:{relay.port}")
            changed = relay.sent
        with Relay(port) as relay:
            _pull(relay.port, held)
            pulled = relay.received
    return again, changed, pulled


def generate(folder: Path, size: int) -> None:
    """A model whose weights nothing compresses, and two adapters."""
    for part in (MODEL, ADAPTERS):
        (folder / part).mkdir(parents=True)
    with (folder / MODEL / "model.onnx.data").open("wb") as file:
        for begin in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - begin)))
    (folder / MODEL / "model.onnx").write_bytes(os.urandom(100_000))
    (folder / MODEL / "genai_config.json").write_text("{}")
    for name in ("first", "second"):
        (folder / ADAPTERS / f"{name}.bin").write_bytes(os.urandom(ADAPTER))


@contextmanager
def registry(folder: Path) -> Iterator[int]:
    """The cluster's registry program on a port of its own, empty; what it got is gone afterwards."""
    port = free_port()
    place = Path(tempfile.mkdtemp(dir=folder))
    command = [str(binaries.binary("registry")), "--address", f"127.0.0.1:{port}", "--folder", str(place)]
    try:
        with Process("registry", command, {}, folder / "registry.log") as process:
            wait_for("the registry", lambda: _answers(process, port), 20)
            yield port
            process.check()
    finally:
        shutil.rmtree(place)


def _answers(process: Process, port: int) -> bool:
    process.check()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _child(what: str, *arguments: object) -> dict[str, float]:
    """What ``bench.pushing`` says. Whatever was written before is on disk by then."""
    os.sync()
    time.sleep(1)
    command = [sys.executable, "-m", "bench.pushing", what, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{what} ended with {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _took(said: dict[str, float]) -> Took:
    return Took(said["seconds"], said["processor"])


def _pull(port: int, held: Path) -> None:
    """Fetch the image as somebody who has the layers in ``held``."""
    command = [str(binaries.binary("oras")), "copy", "--from-plain-http", "--to-oci-layout",
               f"127.0.0.1:{port}/{REPOSITORY}:latest", f"{held}:latest"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"oras ended with {done.returncode}: {done.stderr[-2000:]}")

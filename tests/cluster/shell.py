"""Running programs: to the end, or as daemons known by pid *and* start time, so that only our own are stopped."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.layout import LOGS, RUN


class Failed(Exception):  # noqa: N818  (what a person sees: cause and remedy)
    """The cluster cannot do what was asked; the text says why and what to do."""


def say(text: str) -> None:
    """A line of progress."""
    print(f"cluster: {text}", flush=True)


@contextmanager
def heartbeat(what: str, more: str = "", every: float = 30.0) -> Iterator[None]:
    """Say from time to time that something long still goes on, and for how long it does."""
    done, begun = threading.Event(), time.monotonic()

    def beat() -> None:
        while not done.wait(every):
            minutes, seconds = divmod(round(time.monotonic() - begun), 60)
            say(f"still {what}: {minutes} min {seconds:02} s {more}".rstrip())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def run(*command: str | Path, quiet: bool = False, stdin: str | None = None, check: bool = True) -> str:
    """Run to the end; its output. Raises Failed with what it said."""
    done = subprocess.run([str(c) for c in command], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode and check and not quiet:
        raise Failed(f"{' '.join(str(c) for c in command[:6])} failed: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout


def wait(what: str, done: Callable[[], bool], seconds: float, log: Path | None = None) -> None:
    """Wait until it is so. Raises Failed, with the end of a log, when time is up."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:]) if log and log.exists() else ""
            raise Failed(f"{what} did not happen within {seconds:.0f} s\n{tail}")
        time.sleep(0.1)


def start(name: str, *command: str | Path, environment: dict[str, str] | None = None) -> None:
    """Start a daemon that outlives us; its output goes to ``logs/<name>.log``."""
    if alive(name):
        return
    LOGS.mkdir(parents=True, exist_ok=True)
    RUN.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [str(c) for c in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    process.returncode = 0  # it outlives us and is known by its file: Python need not warn that it still runs
    _file(name).write_text(json.dumps({"pid": process.pid, "started": _started(process.pid)}))


def alive(name: str) -> bool:
    """Whether the daemon runs."""
    return pid(name) is not None


def pid(name: str) -> int | None:
    """The daemon's pid, if that process is still the one that we started."""
    try:
        known = json.loads(_file(name).read_text())
    except (OSError, ValueError):
        return None
    started = _started(known["pid"])
    return int(known["pid"]) if started is not None and started == known["started"] else None


def stop(name: str, hard: bool = False, seconds: float = 10) -> None:
    """Stop a daemon, and wait until it is gone."""
    number = pid(name)
    if number is not None:
        _signal(number, signal.SIGKILL if hard else signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while pid(name) is not None:
            if time.monotonic() > deadline:
                _signal(number, signal.SIGKILL)
            time.sleep(0.05)
    _file(name).unlink(missing_ok=True)


def _signal(number: int, which: signal.Signals) -> None:
    try:
        os.kill(number, which)
    except ProcessLookupError:
        return


def names() -> list[str]:
    """Daemons that were started and not stopped."""
    return sorted(path.stem for path in RUN.glob("*.pid")) if RUN.exists() else []


def _file(name: str) -> Path:
    return RUN / f"{name}.pid"


def _started(number: int) -> str | None:
    """Start time of a process in clock ticks; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] == "Z":
        try:
            os.waitpid(number, os.WNOHANG)
        except ChildProcessError:
            return None
        return None
    return fields[19]


def processes_with(text: str) -> Sequence[int]:
    """Pids whose command line holds a text (a path below our state folder, which no stranger has)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found

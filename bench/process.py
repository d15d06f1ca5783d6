"""A process under measurement: its CPU time and its memory, as the kernel counts them."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A context manager: leaving it ends the process."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name, self._command, self._environment, self._log = name, command, environment, log

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env={**os.environ, **self._environment}, stdout=log, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Raise, with its last words, when it has ended."""
        if (code := self._process.poll()) is not None:
            words = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise RuntimeError(f"{self.name} ended with {code}:\n{words}")

    async def until(self, done: Callable[[], Awaitable[object]], seconds: float, pause: float = 1.0) -> None:
        """Wait until something is so, and look after the process meanwhile. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not await done():
                self.check()
                await asyncio.sleep(pause)

    def cpu(self) -> float:
        """Seconds of CPU time so far, its ended children's too."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(field) for field in fields[11:15]) / TICKS

    def memory(self) -> tuple[int, int]:
        """Resident bytes: now, and the most that there ever were."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        now, most = (int(status[field].split()[0]) * 1024 for field in ("VmRSS", "VmHWM"))
        return now, most

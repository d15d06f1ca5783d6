"""What several processes of a pod have to report: each leaves a file, and the launcher publishes the one that tells why
they ended.

Who loses another process says that it was interrupted, and may say so before the other one has ended. So what counts is
not who ended first but who has a reason of its own.
"""

import os
import signal
from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import ValidationError

from slmkit.reporting import failed
from slmkit.run import EXIT_PERMANENT, PERMANENT
from slmkit.stop import EXIT_TERMINATED
from slmops.contract import WORK_DIR, Reason, Report


def place(local: int | str) -> Path:
    """Where the process of this number in its pod leaves its report."""
    return Path(os.environ.get("WORK_DIR", WORK_DIR)) / f"report-{local}.json"


def clear(processes: int) -> None:
    """Forget what others have left before."""
    for local in range(processes):
        place(local).unlink(missing_ok=True)


def left(processes: int) -> list[Report]:
    """The reports that there are, in the order in which they were written."""
    found = [path for local in range(processes) if (path := place(local)).exists()]
    read = (_read(path) for path in sorted(found, key=lambda path: path.stat().st_mtime_ns))
    return [report for report in read if report is not None]


def first() -> Report | None:
    """The report of the pod's first process, which speaks for all where none has failed."""
    return _read(place(0))


def _read(path: Path) -> Report | None:
    try:
        return Report.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def verdict(codes: Collection[int], reports: Sequence[Report]) -> tuple[Report | None, int]:
    """(report, exit code) of a pod: by the exit codes of its processes that have failed, and by what was reported."""
    if -signal.SIGKILL in codes:
        return failed(Reason.OUT_OF_MEMORY, "a training process was killed, which the kernel does when memory runs "
                       "out"), 128 + signal.SIGKILL  # fmt: skip
    own = next((r for r in reports if r.outcome == "Failed" and r.reason is not Reason.TERMINATED), None)
    if own is not None:
        return own, EXIT_PERMANENT if own.reason in PERMANENT else 1
    code = next((code for code in codes if code not in (EXIT_TERMINATED, -signal.SIGTERM)), None)
    if code is None:
        return next((r for r in reports if r.outcome == "Failed"), None), EXIT_TERMINATED
    if code > 0:
        return None, code
    said = signal.strsignal(-code) or f"signal {-code}"
    return failed(Reason.INTERNAL_ERROR, f"a training process ended by itself: {said}"), 128 - code

"""A volume is one pod's at a time: another Job on it waits until the pod before it has written what it had to."""

import fcntl
import logging
import os
import time
from pathlib import Path

from slmkit.run import Context, RunFailed
from slmops.contract import Reason

PATIENCE = 180.0
"""Longer than a pod that was told to stop has for its last checkpoint."""
PAUSE = 0.5
log = logging.getLogger("slmkit.hold")


def hold(context: Context, patience: float = PATIENCE) -> None:
    """Hold the run's volume until this process ends. Raises RunFailed when another one does not let it go."""
    context.state.mkdir(parents=True, exist_ok=True)
    # A lock of the process, which ends with it however it ends; closing the file would give it up.
    file = os.open(context.state / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + patience
    while not _locked(file, context.state):
        context.check()
        if time.monotonic() > end:
            raise RunFailed(Reason.INTERNAL_ERROR, f"another pod has been writing to the volume for {patience:.0f} s")
        time.sleep(PAUSE)


def _locked(file: int, folder: Path) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # held by another process; POSIX allows both
        return False
    except OSError as error:  # a file system without locks
        log.warning("the volume knows no locks: %s", error, extra={"path": str(folder)})
    return True

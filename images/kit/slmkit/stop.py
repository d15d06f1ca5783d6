"""The first thing that an image does: let SIGTERM end the process. Nothing is imported that takes time."""

import os
import signal

EXIT_TERMINATED = 143
"""128 + SIGTERM, as the shell has it. The Job's podFailurePolicy does not count such an end."""


def stoppable() -> None:
    """Let SIGTERM end the process from now on. Linux keeps it from a container's first process until that has a handler,
    and importing a framework takes longer than the time that a pod has which is told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_TERMINATED))

"""How a process ends that is told to stop. Nothing is imported that takes time: the first of it is what an image does
first."""

import os
import signal
import threading
import time
from collections.abc import Callable

EXIT_TERMINATED = 143
"""128 + SIGTERM, as the shell has it. The Job's podFailurePolicy does not count such an end."""


def stoppable() -> None:
    """Let SIGTERM end the process from now on. Linux keeps it from a container's first process until that has a handler,
    and importing a framework takes longer than the time that a pod has which is told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_TERMINATED))


def leave_in_time(stopping: threading.Event, seconds: float, last_words: Callable[[], object]) -> None:
    """End the process so many seconds after it was told to stop, whatever it does then. A library that loads or converts
    a model looks at nothing meanwhile, and the kubelet's kill, a little later, would be counted as a failure."""

    def wait() -> None:
        stopping.wait()
        time.sleep(seconds)
        last_words()
        os._exit(EXIT_TERMINATED)

    threading.Thread(target=wait, daemon=True).start()

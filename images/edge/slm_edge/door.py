"""What a model image holds is looked at before the runtime reads any of it: the image may be anybody's.

In a process of its own, since looking at a tokenizer takes memory that the server has better use for.
"""

import os
import subprocess
import sys
from pathlib import Path

from pydantic import ValidationError

from slmkit.run import RunFailed
from slmops.contract import Reason, Report


def look(folder: Path) -> None:
    """Raise RunFailed for a model that is not loaded."""
    places = os.pathsep.join(place for place in sys.path if place)
    done = subprocess.run([sys.executable, "-m", "slmkit.safety", str(folder)], stdout=subprocess.PIPE, text=True,
                          check=False, env=os.environ | {"PYTHONPATH": places})  # fmt: skip
    if done.returncode == 0:
        return
    try:
        report = Report.model_validate_json(done.stdout)
    except ValidationError:
        raise RuntimeError(f"nothing could look at the model: exit code {done.returncode}") from None
    raise RunFailed(report.reason or Reason.UNSAFE_SOURCE, report.message)

"""One process of a group, as the launcher starts it: trains a toy and writes down what came out.

``python -m tests.unit.images.ranks FOLDER SETTINGS``: the checkpoints are in FOLDER; SETTINGS are JSON, hyperparameters and
besides ``die_at`` and ``stop_at`` (a batch), ``records`` (how many), ``paired`` (whether each has a worse answer) and
``bias`` (of all logits, which no answer depends on).
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from slm_trainer.distributed import group_of_this_process
from slm_trainer.loop import fit
from slm_trainer.objectives import Objective
from slm_trainer.objectives.base import by_labels
from slm_trainer.objectives.contrast import by_contrast
from slmkit.run import Context, RunFailed
from slmops.contract import Contrast
from tests.unit.images.toys import Toy, pairs, records, wanted, weights

torch.set_num_threads(1)


def main(folder: Path, settings: dict[str, Any]) -> int:
    """Train. The exit code is what the program of the image would make of it."""
    group = group_of_this_process()
    die_at, stop_at = settings.pop("die_at", None), settings.pop("stop_at", None)
    bias = settings.pop("bias", 0.0)
    count, paired = settings.pop("records", 64), settings.pop("paired", False)
    judge, lessons = (by_contrast(Contrast()).loss, pairs(count)) if paired else (by_labels, records(count))
    torch.manual_seed(7 + group.rank)  # what differs at the start is the leader's in all of them
    model, seen, curve = Toy(), [], []
    if bias:
        torch.nn.init.constant_(model.out.bias, bias)
    context = Context(work=folder / f"work-{group.rank}", state=folder)

    def noted(*batch: Any) -> Any:
        seen.append(len(batch[1]))
        if die_at is not None and len(seen) > die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if len(seen) == stop_at:
            context.stopping.set()
        return judge(*batch)

    total = group.total

    def told(value: float, stopping: bool) -> tuple[float, bool]:
        whole, stops = total(value, stopping)
        curve.append(whole)
        return whole, stops

    group.total = told  # type: ignore[method-assign]
    try:
        fit(model, lessons, wanted(**settings), 0, Objective(noted), context, None, group)
    except RunFailed as failed:
        print(failed.reason, failed.message, file=sys.stderr)
        return 143 if failed.reason == "Terminated" else 1
    said = context.progress
    (folder / f"rank-{group.rank}.json").write_text(json.dumps({
        "curve": curve, "rows": sum(seen), "weights": weights(model).tolist(), "resumes": said.resumes,
        "lost": said.lost_steps, "last_checkpoint": said.last_checkpoint,
    }))  # fmt: skip
    group.finish()
    if not group.leads:
        group.wait(context.stopping)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2])))

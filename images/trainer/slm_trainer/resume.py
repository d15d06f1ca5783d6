"""When a training is kept, and where it goes on: what the loop sees of its checkpoints."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from slm_trainer.checkpoints import Checkpoints, Part, Weights
from slm_trainer.distributed import Group
from slm_trainer.store import Record, digest
from slmkit.hold import hold
from slmkit.run import Context, RunFailed
from slmops.contract import Hyperparameters, Reason


class Kept:
    """The parts of a training, kept on the volume. Without one, nothing is kept and everything begins anew.

    All processes of a group read; the leader alone writes.
    """

    def __init__(self, wanted: Hyperparameters, context: Context, group: Group, parts: Mapping[str, Part],
                 subject: str) -> None:  # fmt: skip
        self._parts, self._context, self._group = parts, context, group
        checkpoint = wanted.checkpoint
        self._all: Checkpoints | None = None
        if checkpoint is not None:
            if group.leads:
                hold(context)
            folder = context.state / "checkpoints"
            self._all = Checkpoints(folder, checkpoint.every_steps, checkpoint.keep, {"training": subject})

    def begin(self) -> int:
        """Bring all parts to where the last attempt was kept. Returns the steps that are made already."""
        step = self._all.load(self._parts) if self._all else 0
        self._group.agree(step, "the newest checkpoint")
        if self._all and self._group.leads:
            self._all.prune()
            if step:
                self._all.mark(step)
        self._tell()
        return step

    def after(self, step: int, last: bool, stopping: bool) -> None:
        """A step was made. Raises RunFailed when a pod of the group is being taken away, once the step is kept: all end
        after the same one, for the others could not make another without it."""
        if self._all is not None and self._group.leads:
            self._all.note(step)
            if last or stopping or self._all.due(step):
                self.save(step)
        if stopping:
            raise RunFailed(Reason.TERMINATED, "a pod of the training was told to stop")

    def save(self, step: int) -> None:
        """Keep this step."""
        if self._all is not None and self._group.leads and self._all.last != step:
            self._all.save(step, self._parts)
            self._tell()

    def _tell(self) -> None:
        if self._all is not None:
            self._context.kept(self._all.last, self._all.resumes, self._all.lost)


def subject_of(
    wanted: Hyperparameters, records: Sequence[Record], steps: int, weights: Weights, inputs: Mapping[str, str]
) -> str:
    """What a checkpoint belongs to, as a hash: settings, what each source was resolved to (a tag may have moved since),
    the records, which may come from where nothing has a digest, their number and the steps, names and shapes of the
    weights."""
    shapes = {name: list(value.shape) for name, value in weights.state_dict().items()}
    settings = wanted.model_dump(mode="json", exclude={"checkpoint"})
    settings["precision"] = wanted.precision == "FP16"  # has a state of its own; the others go on with each other's
    whole = [settings, dict(inputs), digest(records), len(records), steps, shapes]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

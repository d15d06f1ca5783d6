"""The records that Olive learns from: those that the trainer would, which measures the adapter by the others."""

from slm_trainer import tasks
from slm_trainer.dataset.sets import prepare
from slm_trainer.dataset.spool import Spool
from slmkit.registry import Registry
from slmkit.run import Context
from slmops.contract import TrainRun


def records(run: TrainRun, context: Context, registry: Registry) -> Spool:
    """Records with an answer, none of them held out: divided and sifted by the trainer's own code, and on disk."""
    sets = prepare(run, context, registry)
    tasks.check(run.task, sets.training, *sets.apart)
    return sets.training

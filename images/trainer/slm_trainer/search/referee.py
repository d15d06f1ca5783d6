"""Whether a trial that trains is to go on, by what is known of earlier ones."""

from collections.abc import Sequence

from slm_trainer.search.study import replayed
from slmops.contract import Trial, TrialResult

MOST = 64
"""Measurements that are looked at: so many fit into a report."""


class Referee:
    """Follows one trial."""

    def __init__(self, wanted: Trial) -> None:
        study = replayed(wanted.search)
        for _ in range(wanted.number - len(wanted.search.tried)):
            study.ask()  # those that run beside this one: numbers go on after them
        self._trial = study.ask()
        self._measured: list[float] = []
        self.pruned = False

    def ends(self, losses: Sequence[float], last: bool) -> bool:
        """Whether the trial is to end. ``losses``: all measurements so far, also those that another attempt has made.
        ``last``: the training is over anyway, and what is trained to its end counts as such."""
        for loss in losses[len(self._measured) : MOST]:
            if self.pruned:
                break
            self._measured.append(float(f"{loss:.5g}"))
            self._trial.report(self._measured[-1], len(self._measured))
            self.pruned = self._trial.should_prune() and not last
        return self.pruned

    def resume(self, losses: Sequence[float], pruned: bool) -> None:
        """Take in what another attempt has measured, and whether the trial was ended by that."""
        self.ends(losses, last=True)  # it is known already what came of each
        self.pruned = pruned

    def result(self, value: float | None) -> TrialResult:
        """What is reported of the trial; the measurements are those that it was judged by."""
        return TrialResult(value=None if self.pruned else value, pruned=self.pruned, measured=tuple(self._measured))

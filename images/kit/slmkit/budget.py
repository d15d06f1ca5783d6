"""The budget of a run: once its pace is measured, would it stay within what may be spent?

The estimate is made once an attempt, before the long part. What is spent in the end, over all attempts, the operator
holds against the bound: it alone knows of the others.
"""

from slmops.contract import Budget

SHARE = 20
"""The first twentieth of the steps is the warm-up, …"""
FEWEST, MOST = 5, 200
"""… but no fewer and no more steps than these."""
HOUR = 3600.0


class Guard:
    """Watches the steps of the longest stages."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._begun: dict[str, tuple[int, float]] = {}
        self._judged: set[str] = set()

    def step(self, stage: str, number: int, of: int, elapsed: float) -> str:
        """``number`` of ``of`` steps of a stage are done, ``elapsed`` seconds after the run began. Returns why the run
        has to end; empty when it may go on, or nobody can tell yet.

        The first report of a stage only starts the clock: what came before it (compiling, filling caches, a resumed
        run's earlier steps) says nothing about the pace.
        """
        if stage in self._judged or of <= 0:
            return ""
        first, since = self._begun.setdefault(stage, (number, elapsed))
        measured = number - first
        if measured < min(max(FEWEST, of // SHARE), MOST):
            return ""
        self._judged.add(stage)
        pace = (elapsed - since) / measured
        return self._over(elapsed + pace * max(0, of - number), pace, of - number)

    def _over(self, seconds: float, pace: float, steps: int) -> str:
        budget = self._budget
        hours, cost = seconds * budget.gpus / HOUR, seconds * budget.hourly / HOUR
        why = f"measured are {pace:.3g} s a step, and {steps} steps are left"
        if budget.gpu_hours is not None and hours > budget.gpu_hours:
            return f"about {hours:.3g} GPU hours are needed, {budget.gpu_hours:.3g} are left of the budget; {why}"
        if budget.cost is not None and cost > budget.cost:
            return (
                f"about {cost:.3g} {budget.currency} are needed, {budget.cost:.3g} {budget.currency} are left of the "
                f"budget; {why}"
            )
        return ""

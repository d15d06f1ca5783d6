"""A benchmark run: one or two servers, the same prompts, taking turns."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from slm_bench import machine
from slm_bench.asking import HEADERS, Answer, ask, peak, reach
from slm_bench.seen import Repeats, Seen, figures, noise, paired
from slmkit.data import Example, read_examples
from slmkit.registry import Registry
from slmkit.run import Context, RunFailed
from slmkit.sources import fetch
from slmops.contract import BenchRun, Reason, Report, Statistics, Target

SHARE = 4
"""One of so many prompts is asked again; and at least so many that they are a sample at all."""
FEWEST = 2


@dataclass
class Measured:
    """All that was seen."""

    targets: dict[str, Seen]
    repeats: Repeats = field(default_factory=list)
    """Answers that the first target gave to the same prompts, twice in a round."""
    before: machine.Moment = field(default_factory=machine.Moment)
    after: machine.Moment = field(default_factory=machine.Moment)


def bench(run: BenchRun, context: Context, root: Path = machine.ROOT) -> Report:
    """Measure."""
    load = machine.load(root)
    context.stage("Fetching")
    folder = context.work / "data"
    registry = Registry(run.registry, meter=context)
    context.inputs["data"] = fetch(run.data.source, folder, registry, "dataset", run.data.path)
    examples = list(itertools.islice(read_examples(run.data, folder), 100_000))
    if not examples:
        raise RunFailed(Reason.INVALID_DATA, f"{run.data.source.uri}: no record")
    examples = random.Random(run.seed).sample(examples, min(len(examples), run.prompts * run.rounds))  # noqa: S311
    found = asyncio.run(_measure(run, examples, context, root))
    candidate, stable = found.targets.get("candidate"), found.targets.get("stable")
    return Report(
        outcome="Succeeded",
        targets={name: figures(seen) for name, seen in found.targets.items()},
        statistics=Statistics(
            paired=paired(candidate, stable) if candidate and stable else {},
            noise=noise(found.repeats),
            disturbances=machine.disturbances(found.before, found.after, load),
        ),
    )


async def _measure(run: BenchRun, examples: Sequence[Example], context: Context, root: Path) -> Measured:
    limits = httpx.Limits(max_connections=run.concurrency + 1)
    # A proxy, certificates or passwords that a cluster puts into every pod's environment are not between a node and its
    # own runtime, and a redirect would have somebody else measured.
    async with httpx.AsyncClient(timeout=run.timeout_seconds, limits=limits, headers=HEADERS, trust_env=False,
                                 follow_redirects=False) as client:  # fmt: skip
        for target in run.targets:
            await reach(client, target, run.timeout_seconds, run.wait_seconds)
        found = Measured({target.name: Seen() for target in run.targets})
        each = len(run.targets)
        context.stage("Warmup" if run.warmup else "Measuring", of=run.warmup * each + run.rounds * (each + 1))
        done = 0
        for turn in range(run.warmup + run.rounds):
            counts = turn >= run.warmup
            if turn == run.warmup:
                found.before = machine.moment(root)
                if run.warmup:
                    context.stage("Measuring", of=run.rounds * (each + 1))
                    done = 0
            chosen = _of_round(examples, turn - run.warmup, run)
            steps = [(target, chosen) for target in run.targets]
            if counts:
                steps.append((run.targets[0], chosen[: _again(run)]))
            answers: dict[int, list[Answer]] = {}
            # Back and forth (A B A', A' B A, …): what gets slower with time gets slower for both, and is no difference
            # of A from itself.
            for number in range(len(steps)) if turn % 2 == 0 else reversed(range(len(steps))):
                context.check()
                answers[number] = await _round(client, run, *steps[number])
                done += 1
                context.step(done)
            if counts:
                for number, target in enumerate(run.targets):
                    found.targets[target.name].rounds.append(list(zip(chosen, answers[number], strict=True)))
                found.repeats.append(list(zip(answers[0], answers[each], strict=False)))
        found.after = machine.moment(root)
        for target in run.targets:
            found.targets[target.name].peak = await peak(client, target, run.timeout_seconds)
    return found


def _of_round(examples: Sequence[Example], turn: int, run: BenchRun) -> list[Example]:
    """A round's prompts: other ones each round, as long as there are any."""
    start = max(turn, 0) * run.prompts
    return [examples[(start + i) % len(examples)] for i in range(min(run.prompts, len(examples)))]


def _again(run: BenchRun) -> int:
    """How many prompts are asked again, where there are so many: fewer than go side by side would find less of a queue."""
    return max(FEWEST, run.prompts // SHARE, run.concurrency)


async def _round(client: httpx.AsyncClient, run: BenchRun, target: Target, examples: Sequence[Example]) -> list[Answer]:
    gate = asyncio.Semaphore(run.concurrency)

    async def one(example: Example) -> Answer:
        async with gate:
            return await ask(client, run, target, example)

    return list(await asyncio.gather(*(one(example) for example in examples)))

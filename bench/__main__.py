"""``python -m bench``: every figure that the project promises, measured here and now, against its target."""

import argparse
import shlex
import sys
from collections.abc import Sequence

from bench import (
    adapters,
    backends,
    data,
    decode,
    figures,
    image,
    labelling,
    memory,
    reconcile,
    rollout,
    serving,
    task,
    training,
)
from bench.place import CLUSTER, elsewhere, heed_sigterm
from demo.steps import NAMESPACE, Kubectl, unfinished
from tests.cluster.shell import Failed

ALL = [
    "labelling", "data", "image", "adapters", "serving", "task", "training", "decode", "reconcile", "rollout", "memory",
]  # fmt: skip
ON_DEMAND = ["backends"]
"""What is measured where it is asked for by name: its image is large, and few have it."""
ALONE = {"labelling", "data", "image", "adapters", "serving"}
"""What needs no cluster."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. 0: every target is met; 1: one is missed; 2: it could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=[*ALL, *ON_DEMAND], help=f"all when absent, but {', '.join(ON_DEMAND)}"
    )
    parser.add_argument(
        "--objects", type=int, help="FineTunes, or nodes of rollout: 1,000 when absent, for memory 10,000"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    parser.add_argument("--check", action="store_true", help="only say whether this can be measured here")
    options = parser.parse_args(arguments)
    wanted = [options.what] if options.what else ALL
    if problem := _problem(wanted, options):
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    if options.check:
        return 0
    heed_sigterm()
    found: dict[str, list[figures.Figure]] = {}
    return_code = 0
    try:
        for what in wanted:
            found[what] = _measure(what, options.objects)
    except* (RuntimeError, AssertionError, TimeoutError, OSError, Failed) as failed:
        for error in _leaves(failed):
            print(f"bench: {type(error).__name__}: {error}", file=sys.stderr)
        return_code = 2
    every = [figure for part in found.values() for figure in part]
    print("\n" + figures.table(every))
    if options.write:
        figures.write(found, shlex.join(["python", "-m", "bench", *(sys.argv[1:] if arguments is None else arguments)]))
    return return_code or (0 if all(figure.met for figure in every) else 1)


def _problem(wanted: Sequence[str], options: argparse.Namespace) -> str | None:
    """Why there is no point in beginning."""
    if options.write:
        try:
            figures.check_page(wanted)
        except RuntimeError as lost:
            return str(lost)
    if ALONE.issuperset(wanted):
        return None
    if problem := elsewhere():
        return problem
    if not options.check and not CLUSTER.healthy():
        return "the local cluster does not run; start it with: make cluster"
    if not options.check and unfinished(Kubectl(CLUSTER)):
        return ("an interrupted demo goes on in the cluster and would be measured too: end it with make demo, or with "
                f"kubectl delete namespace {NAMESPACE}")  # fmt: skip
    return None


def _measure(what: str, objects: int | None) -> list[figures.Figure]:
    match what:
        case "reconcile":
            return reconcile.run(objects or 1000)
        case "rollout":
            return rollout.run(objects or 1000)
        case "memory":
            return memory.run(objects or 10_000)
        case "labelling":
            return labelling.run()
        case "data":
            return data.run()
        case "image":
            return image.run()
        case "adapters":
            return adapters.run()
        case "serving":
            return serving.run()
        case "training":
            return training.run()
        case "backends":
            return backends.run()
        case "decode":
            return decode.run()
        case _:
            return task.run()


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


if __name__ == "__main__":
    sys.exit(main())

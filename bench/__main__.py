"""``python -m bench``: every figure that the project promises, measured here and now, against its target."""

import argparse
import shlex
import sys
from collections.abc import Sequence

from bench import data, figures, labelling, memory, reconcile, task, training
from bench.place import CLUSTER, heed_sigterm

ALL = ["labelling", "data", "task", "training", "reconcile", "memory"]
ALONE = {"labelling", "data"}
"""What needs no cluster."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. 0: every target is met; 1: one is missed; 2: it could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=ALL, help="all of them when absent")
    parser.add_argument("--objects", type=int, help="FineTunes: 1,000 for reconcile and 10,000 for memory when absent")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    wanted = [options.what] if options.what else ALL
    if not ALONE.issuperset(wanted) and not CLUSTER.healthy():
        print("bench: the local cluster does not run; start it with: make cluster", file=sys.stderr)
        return 2
    heed_sigterm()
    found: list[figures.Figure] = []
    try:
        for what in wanted:
            if what == "reconcile":
                found += reconcile.run(options.objects or 1000)
            elif what == "memory":
                found += memory.run(options.objects or 10_000)
            elif what == "labelling":
                found += labelling.run()
            elif what == "data":
                found += data.run()
            elif what == "training":
                found += training.run()
            else:
                found += task.run()
    except* (RuntimeError, AssertionError, TimeoutError, OSError) as failed:
        for error in _leaves(failed):
            print(f"bench: {type(error).__name__}: {error}", file=sys.stderr)
        return_code = 2
    else:
        return_code = 0 if all(figure.met for figure in found) else 1
    print("\n" + figures.table(found))
    if options.write and return_code < 2:
        figures.write(found, shlex.join(["python", "-m", "bench", *(sys.argv[1:] if arguments is None else arguments)]))
    return return_code


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


if __name__ == "__main__":
    sys.exit(main())

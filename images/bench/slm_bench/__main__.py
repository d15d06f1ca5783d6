"""``python -m slm_bench /etc/slmops/run.json``."""

import sys

from slmkit.stop import stoppable

stoppable()
from slm_bench.bench import bench
from slm_bench.pull import pull
from slmkit.run import Context, main
from slmops.contract import BenchRun, EvidenceRun, PullRun, Report, SignRun, VerifyRun


def sign(run: SignRun, context: Context) -> Report:
    """Cryptography is loaded where it is needed: what is measured shares a small node with whoever measures it."""
    from slm_bench import sign

    return sign.sign(run, context)


def evidence(run: EvidenceRun, context: Context) -> Report:
    """As above."""
    from slm_bench import evidence

    return evidence.publish(run, context)


def verify(run: VerifyRun, context: Context) -> Report:
    """As above."""
    from slm_bench import verify

    return verify.verify(run, context)


if __name__ == "__main__":
    sys.exit(main({BenchRun: bench, PullRun: pull, SignRun: sign, EvidenceRun: evidence, VerifyRun: verify}))

"""``python -m slm_bench /etc/slmops/run.json``.

What is measured shares a small node with whoever measures it: nothing is loaded that a run does not need.
"""

import sys
from typing import Any

from slmkit.stop import stoppable

stoppable()
from slmkit.run import Handler, main
from slmops.contract import BenchRun, EvidenceRun, PullRun, SignRun, VerifyRun

RUNS: dict[type[Any], Handler] = {
    BenchRun: "slm_bench.bench:bench",
    PullRun: "slm_bench.pull:pull",
    SignRun: "slm_bench.sign:sign",
    EvidenceRun: "slm_bench.evidence:publish",
    VerifyRun: "slm_bench.verify:verify",
}

if __name__ == "__main__":
    sys.exit(main(RUNS))

"""``python -m slm_quantizer /etc/slmops/run.json``."""

import os
import sys
from typing import Any

from slmkit.stop import stoppable

stoppable()
os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
# Threads that wait by spinning take the core from the one that they wait for, on a node that does something else too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from slmkit.run import Handler, main
from slmops.contract import IndexRun, QuantizeRun, TrainRun

RUNS: dict[type[Any], Handler] = {
    QuantizeRun: "slm_quantizer.quantize:quantize",
    TrainRun: "slm_quantizer.adapt:adapt",
    IndexRun: "slmkit.variants:index",
}

if __name__ == "__main__":
    sys.exit(main(RUNS))

"""``python -m slm_quantizer /etc/slmops/run.json``."""

import os
import sys

from slmkit.stop import stoppable

stoppable()
os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
# Threads that wait by spinning take the core from the one that they wait for, on a node that does something else too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from slm_quantizer.adapt import adapt
from slm_quantizer.quantize import quantize
from slmkit.run import main
from slmkit.variants import index
from slmops.contract import IndexRun, QuantizeRun, TrainRun

if __name__ == "__main__":
    sys.exit(main({QuantizeRun: quantize, TrainRun: adapt, IndexRun: index}))

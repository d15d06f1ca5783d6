"""``python -m slm_quantizer /etc/slmops/run.json``."""

import sys
from typing import Any

from slmkit.cores import one_thread_a_core
from slmkit.stop import stoppable

stoppable()
one_thread_a_core()

from slmkit.run import Handler, main
from slmops.contract import IndexRun, QuantizeRun, TrainRun

RUNS: dict[type[Any], Handler] = {
    QuantizeRun: "slm_quantizer.quantize:quantize",
    TrainRun: "slm_quantizer.adapt:adapt",
    IndexRun: "slmkit.variants:index",
}

if __name__ == "__main__":
    sys.exit(main(RUNS))

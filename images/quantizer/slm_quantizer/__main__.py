"""``python -m slm_quantizer /etc/slmops/run.json``."""

import os
import sys

from slmkit.run import main
from slmops.contract import QuantizeRun

os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))

from slm_quantizer.quantize import quantize

if __name__ == "__main__":
    sys.exit(main({QuantizeRun: quantize}))

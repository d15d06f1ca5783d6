"""``python -m slm_bench /etc/slmops/run.json``."""

import sys

from slmkit.stop import stoppable

stoppable()
from slm_bench.bench import bench
from slm_bench.pull import pull
from slmkit.run import main
from slmops.contract import BenchRun, PullRun

if __name__ == "__main__":
    sys.exit(main({BenchRun: bench, PullRun: pull}))

"""``python -m slm_bench /etc/slmops/run.json``."""

import sys

from slmkit.stop import stoppable

stoppable()
from slm_bench.bench import bench  # noqa: E402  (imports that take a while)
from slm_bench.pull import pull  # noqa: E402
from slmkit.run import main  # noqa: E402
from slmops.contract import BenchRun, PullRun  # noqa: E402

if __name__ == "__main__":
    sys.exit(main({BenchRun: bench, PullRun: pull}))

"""``python -m slm_trainer /etc/slmops/run.json``."""

import os
import sys
from typing import Any

from slmkit.cores import one_thread_a_core
from slmkit.stop import stoppable
from slmops.contract import WORK_DIR

stoppable()
one_thread_a_core()
# cuBLAS repeats itself only with a workspace of a fixed size.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# Debian's PyTorch is built without it.
os.environ.setdefault("USE_LIBUV", "0")
if (local := os.environ.get("LOCAL_RANK")) is not None:  # the launcher speaks for the processes of its pod
    from slm_trainer.reports import place

    os.environ["TERMINATION_PATH"] = str(place(local))
    if local != "0":  # each fetches and encodes for itself: in one folder, it would read what another is just writing
        os.environ["WORK_DIR"] = f"{os.environ.get('WORK_DIR', WORK_DIR)}/process-{local}"

from slm_trainer.together import measures, needed, training
from slmkit.run import Handler, main
from slmops.contract import CompareRun, JoinRun, LabelRun, SuggestRun, TrainRun

RUNS: dict[type[Any], Handler] = {
    LabelRun: "slm_trainer.label.run:label",
    TrainRun: "slm_trainer.train:train",
    SuggestRun: "slm_trainer.search.suggest:suggest",
    JoinRun: "slmkit.adapters:join",
    CompareRun: "slm_trainer.comparison.run:compare",
}

if __name__ == "__main__":
    run = training(sys.argv[1:])
    if run is not None and measures():
        from slm_trainer.evaluate import LOOK
        from slmkit.apart import begin

        # Before the first question about GPUs: without NVML it is CUDA that answers, and that outlives no fork.
        begin(LOOK)
    if run is not None and needed(run):
        from slm_trainer.launch import launch

        sys.exit(launch(run, "-m", "slm_trainer", sys.argv[1]))
    sys.exit(main(RUNS))

"""``python -m slmkit.safety FOLDER``: looks at what ONNX Runtime GenAI is about to load, in a process of its own, whose
memory goes with it. Says on standard output what is wrong, as a report, and ends with 3 then.
"""

import sys
from pathlib import Path

from slmkit.run import EXIT_PERMANENT, RunFailed
from slmkit.safety import check_runtime_folder
from slmops.contract import Report

if __name__ == "__main__":
    try:
        check_runtime_folder(Path(sys.argv[1]))
    except RunFailed as failed:
        print(Report(outcome="Failed", reason=failed.reason, message=failed.message[:1024]).model_dump_json())
        sys.exit(EXIT_PERMANENT)

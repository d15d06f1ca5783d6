"""The model image is on the node: mounted, complete, readable to the last byte, and fit to be loaded."""

import hashlib
from pathlib import Path

from slmkit.run import Context, RunFailed
from slmkit.safety import check_runtime_folder
from slmops.contract import Figures, PullRun, Reason, Report

CHUNK = 1 << 20


def pull(run: PullRun, context: Context) -> Report:
    """Read every file once: what cannot be read now would fail the server later. The image may be anybody's, so its model
    is looked at here, before a server is started with it."""
    root = Path(run.model_path)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    configs = [path for path in files if path.name == "genai_config.json"]
    if len(configs) != 1:
        raise RunFailed(
            Reason.UNSUPPORTED_MODEL, f"the image holds {len(configs)} genai_config.json, exactly one is needed"
        )
    if not any(path.suffix == ".onnx" for path in files):
        raise RunFailed(Reason.UNSUPPORTED_MODEL, "the image holds no *.onnx")
    check_runtime_folder(configs[0].parent)
    context.stage("Reading", of=len(files))
    total, listing = 0, hashlib.sha256()
    for number, path in enumerate(files, 1):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total += path.stat().st_size
        listing.update(f"{path.relative_to(root)} {digest}\n".encode())
        context.step(number)
    context.inputs["files"] = f"sha256:{listing.hexdigest()}"
    return Report(outcome="Succeeded", evaluation={"model": Figures(weight_bytes=total)})

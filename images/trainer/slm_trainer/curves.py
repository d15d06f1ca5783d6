"""The curves of a training: all of them for TensorBoard, the losses in memory for the report."""

from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from slmops.contract import CurvePoint

NAMES = {
    "train_loss": "train/loss", "eval_loss": "eval/loss", "learning_rate": "train/learning_rate",
    "tokens_per_second": "train/tokens_per_second",
}  # fmt: skip
"""What the loop calls a value, and its name in TensorBoard."""


class Curves:
    """Takes in values step by step. ``folder`` None: nothing is written."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.points: list[CurvePoint] = []
        """One for each measurement on held-out records."""
        self._writer = SummaryWriter(str(folder), flush_secs=30) if folder else None
        self._since: list[float] = []

    def add(self, step: int, **values: float) -> None:
        """Values after a step: any of ``NAMES``."""
        if "train_loss" in values:
            self._since.append(values["train_loss"])
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(NAMES[name], value, step)
        if "eval_loss" in values:
            mean = sum(self._since) / len(self._since) if self._since else None
            self._since.clear()
            self.points.append(CurvePoint(step=step, train_loss=mean, eval_loss=values["eval_loss"]))

    def state_dict(self) -> dict[str, Any]:
        """What a training that is taken up again goes on with; the files are on the disk already."""
        return {"points": [point.model_dump() for point in self.points], "since": list(self._since)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with it."""
        self.points = [CurvePoint.model_validate(point) for point in state["points"]]
        self._since = list(state["since"])

    def close(self) -> dict[str, Path]:
        """End the files. Returns them by name."""
        if self._writer is None or self.folder is None:
            return {}
        self._writer.close()
        return {path.name: path for path in sorted(self.folder.iterdir()) if path.is_file()}

"""Calibration records as Olive's passes read them: one at a time, from the folder of a TokenStore."""

from pathlib import Path
from typing import Any

import torch

from slm_trainer.store import TokenStore

CALIBRATION = "slmops_calibration"
"""The data set component of Olive that reads our records."""


def calibrated_by(records: Path) -> dict[str, Any]:
    """The ``data_config`` that lets a pass read the records in the folder of a TokenStore, one at a time."""
    from olive.data.registry import Registry

    Registry.register_dataset(CALIBRATION)(_Records)
    return {
        "name": "calibration", "type": "DataContainer",
        "load_dataset_config": {"type": CALIBRATION, "folder": str(records)},
        "pre_process_data_config": {"type": "skip_pre_process"},
        "post_process_data_config": {"type": "skip_post_process"},
        "dataloader_config": {"type": "default_dataloader", "batch_size": 1},
    }  # fmt: skip


class _Records(torch.utils.data.Dataset[tuple[dict[str, torch.Tensor], int]]):
    """Records as Olive's passes read them: what goes into the model, and a label that nobody looks at."""

    def __init__(self, folder: str) -> None:
        self._store = TokenStore(Path(folder))

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, index: int) -> tuple[dict[str, torch.Tensor], int]:
        tokens = torch.tensor(self._store[index].tokens)
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}, 0

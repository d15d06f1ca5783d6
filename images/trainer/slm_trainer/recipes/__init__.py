"""How a model learns, one file a method.

A recipe has two functions. ``prepare(model, folder, run)`` takes the loaded model, and the folder that it was loaded from
where there is one, and returns the model that trains. ``finish(model, folder, work)`` takes the trained model, on the CPU,
and returns the whole model in full precision and the adapter's files (none for Full).
"""

from types import ModuleType

from slm_trainer.recipes import adopt, dora, full, lora, qlora

__all__ = ["RECIPES", "adopt"]
RECIPES: dict[str, ModuleType] = {"Full": full, "LoRA": lora, "QLoRA": qlora, "DoRA": dora}
"""By ``TrainRun.method``."""

"""Models that train in a moment, and what they learn. Imports PyTorch: for tests that run where it is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from slm_trainer.model import new_model, save, train_tokenizer
from slm_trainer.pairs import Pairs
from slm_trainer.tokens import Record
from slmkit.data import Example
from slmops.contract import Architecture, Hyperparameters

WORDS = 12
EXAMPLES = [Example(({"role": "user", "content": f"code {n}"},), f"open gate {n % 3}") for n in range(12)]


def saved(folder: Path, **architecture: int) -> Path:
    """A small model that knows nothing, with a tokenizer made from EXAMPLES."""
    torch.manual_seed(1)
    tokenizer = train_tokenizer(EXAMPLES, 300)
    plain = {"hidden_size": 64, "layers": 2, "attention_heads": 2, "key_value_heads": 1, "intermediate_size": 96}
    wanted = Architecture.model_validate(plain | {"vocabulary_size": 300} | architecture)
    save(new_model(wanted, tokenizer), tokenizer, folder)
    return folder


class Toy(torch.nn.Module):
    """The next word from the last two."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(WORDS, 16)
        self.mix = torch.nn.Linear(32, 16)
        self.drop = torch.nn.Dropout(dropout)
        self.out = torch.nn.Linear(16, WORDS)

    def forward(self, input_ids: Any, use_cache: bool = True) -> Any:
        now = self.embed(input_ids)
        before = torch.cat([torch.zeros_like(now[:, :1]), now[:, :-1]], dim=1)
        hidden = self.drop(torch.relu(self.mix(torch.cat([now, before], dim=-1))))
        return SimpleNamespace(logits=self.out(hidden))


def records(count: int = 64) -> list[Record]:
    """Count on from a number: the answer of 3 4 is 5 6 7, sometimes shorter."""
    return [Record([(n + i) % 10 + 1 for i in range(5 - n % 3)], 2) for n in range(count)]


def pairs(count: int = 12) -> Pairs:
    """After n comes n + 1, and not n - 1."""
    better = [Record([n % 9 + 2, n % 9 + 1, n % 9 + 2], 2) for n in range(count)]
    worse = [Record([n % 9 + 2, n % 9 + 1, n % 9], 2) for n in range(count)]
    return Pairs(better, worse)


def wanted(**fields: Any) -> Hyperparameters:
    """Thirty steps."""
    plain = {"max_steps": 30, "epochs": 100, "batch_size": 8, "learning_rate": 0.02, "precision": "FP32"}
    return Hyperparameters.model_validate(plain | fields)


def weights(model: torch.nn.Module) -> torch.Tensor:
    """All of them in a row."""
    return torch.cat([p.detach().cpu().flatten() for p in model.parameters()])

"""The training loop beside a plain one, inside the trainer's image: ``python loops.py FOLDER``.

Both train the same model from the same weights on the same batches, with the same optimizer, in the same number format, on
one thread, taking turns. What is printed is JSON: tokens for each second of processor time, round by round; on one thread
that is the throughput of a machine that has nothing else to do, and what it does besides does not show.
"""

import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (PyTorch's own name for it)
from transformers import Qwen2Config, Qwen2ForCausalLM

from slm_trainer.batch import Batch
from slm_trainer.curves import Curves
from slm_trainer.feed import Feed
from slm_trainer.loop import fit
from slm_trainer.objectives import Objective
from slm_trainer.precision import autocast
from slm_trainer.store import Record
from slm_trainer.watch import Watch
from slmkit.run import Context
from slmops.contract import Hyperparameters

ROUNDS = 7


@dataclass(frozen=True)
class Setting:
    """What is trained, and how its time is told."""

    config: Qwen2Config
    prompt: tuple[int, int]
    """Tokens of prompts, from and to."""
    answer: tuple[int, int]
    records: int
    batch: int
    device: torch.device
    attention: str = "eager"
    """Of our loop, as ``slm_trainer.model`` loads it. The plain one takes what transformers takes by itself on a GPU."""

    def made(self) -> list[Record]:
        """The data."""
        draw = random.Random(1)
        words = self.config.vocab_size
        lengths = [(draw.randrange(*self.prompt), draw.randrange(*self.answer)) for _ in range(self.records)]
        return [Record([draw.randrange(5, words) for _ in range(sum(pair))], pair[0]) for pair in lengths]

    def model(self, attention: str) -> Any:
        """The same weights each time."""
        torch.manual_seed(1)
        config = self.config.__class__.from_dict(self.config.to_dict())
        config._attn_implementation = attention
        with self.device:
            return Qwen2ForCausalLM(config)

    def clock(self) -> float:
        """Seconds: of the processor on a CPU, of the clock on the wall on a GPU, when all that was asked is done."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


DEMO = Setting(
    Qwen2Config(vocab_size=1024, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
                num_key_value_heads=2, tie_word_embeddings=True),
    prompt=(15, 36), answer=(20, 46), records=640, batch=32, device=torch.device("cpu"),
)  # fmt: skip
"""Records as long as those of the demo: prompts of about 25 tokens, answers of about 32."""


def plain(setting: Setting, wanted: Hyperparameters, batches: Sequence[Batch]) -> float:
    """Seconds of the loop that everybody writes."""
    trained = setting.model("eager" if setting.device.type == "cpu" else "sdpa").train()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=wanted.learning_rate, weight_decay=wanted.weight_decay,
                                  betas=(0.9, 0.95), fused=True)  # fmt: skip
    begun = setting.clock()
    for whole in batches:
        batch = whole.to(setting.device)
        with autocast(wanted.precision, setting.device):
            logits = trained(input_ids=batch.tokens, attention_mask=batch.mask, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), batch.labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), wanted.max_gradient_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
    return setting.clock() - begun


def ours(setting: Setting, wanted: Hyperparameters, made: Sequence[Record], folder: Path) -> float:
    """Seconds of the trainer's loop, curves and progress included."""
    trained, watch = setting.model(setting.attention), Watch((), wanted, 0, Curves(folder))
    begun = setting.clock()
    fit(trained, made, wanted, 0, Objective(), Context(), watch)
    spent = setting.clock() - begun
    watch.curves.close()
    return spent


def rounds(setting: Setting, folder: Path, count: int = ROUNDS) -> Iterator[dict[str, float]]:
    """Tokens a second of both, round by round."""
    made, wanted = setting.made(), Hyperparameters(epochs=1, batch_size=setting.batch, learning_rate=1e-3)
    batches = [batch for group in Feed(made, wanted, 0).epoch(0) for batch in group]
    tokens = sum(int(batch.mask.sum()) for batch in batches)
    few = wanted.model_copy(update={"max_steps": 3})
    plain(setting, few, batches[:3])
    ours(setting, few, made, folder / "warm-up")
    for number in range(count):
        pair = {
            "plain": lambda: plain(setting, wanted, batches),
            "ours": lambda n=number: ours(setting, wanted, made, folder / str(n)),
        }
        turn = sorted(pair, reverse=number % 2 == 0)  # whoever comes second has the warmer processor
        yield {name: tokens / pair[name]() for name in turn}


def main() -> None:
    """Measure."""
    torch.set_num_threads(1)
    for pair in rounds(DEMO, Path(sys.argv[1])):
        print(json.dumps(pair), flush=True)


if __name__ == "__main__":
    main()

"""The training loop beside a plain one, inside the trainer's image: ``python loops.py FOLDER``.

Both train the same model from the same weights on the same batches, with the same optimizer, in the same number format, on
one thread, taking turns. What is printed is JSON: tokens for each second of processor time, round by round; on one thread
that is the throughput of a machine that has nothing else to do, and what it does besides does not show.
"""

import json
import random
import sys
import time
from collections.abc import Sequence
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
from slm_trainer.store import Record
from slm_trainer.watch import Watch
from slmkit.run import Context
from slmops.contract import Hyperparameters

ROUNDS, RECORDS, BATCH = 7, 640, 32
CONFIG = Qwen2Config(vocab_size=1024, hidden_size=128, intermediate_size=384, num_hidden_layers=4,
                     num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)  # fmt: skip


def records() -> list[Record]:
    """Records as long as those of the demo: prompts of about 25 tokens, answers of about 32."""
    draw = random.Random(1)
    made = []
    for _ in range(RECORDS):
        prompt, answer = draw.randrange(15, 36), draw.randrange(20, 46)
        made.append(Record([draw.randrange(5, 1024) for _ in range(prompt + answer)], prompt))
    return made


def model() -> Any:
    """The same weights each time."""
    torch.manual_seed(1)
    config = CONFIG.__class__.from_dict(CONFIG.to_dict())
    config._attn_implementation = "eager"
    return Qwen2ForCausalLM(config)


def plain(wanted: Hyperparameters, batches: Sequence[Batch]) -> float:
    """Processor seconds of the loop that everybody writes."""
    trained = model().train()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=wanted.learning_rate, weight_decay=wanted.weight_decay,
                                  betas=(0.9, 0.95), fused=True)  # fmt: skip
    begun = time.process_time()
    for batch in batches:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = trained(input_ids=batch.tokens, attention_mask=batch.mask, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), batch.labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), wanted.max_gradient_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
    return time.process_time() - begun


def ours(wanted: Hyperparameters, made: Sequence[Record], folder: Path) -> float:
    """Processor seconds of the trainer's loop, curves and progress included."""
    trained, watch = model(), Watch((), wanted, 0, Curves(folder))
    begun = time.process_time()
    fit(trained, made, wanted, 0, Objective(), Context(), watch)
    spent = time.process_time() - begun
    watch.curves.close()
    return spent


def main() -> None:
    """Measure."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    made, wanted = records(), Hyperparameters(epochs=1, batch_size=BATCH, learning_rate=1e-3)
    batches = [batch for group in Feed(made, wanted, 0).epoch(0) for batch in group]
    tokens = sum(int(batch.mask.sum()) for batch in batches)
    few = wanted.model_copy(update={"max_steps": 3})
    plain(few, batches[:3])
    ours(few, made, folder / "warm-up")
    for number in range(ROUNDS):
        pair = {"plain": lambda: plain(wanted, batches), "ours": lambda n=number: ours(wanted, made, folder / str(n))}
        turn = sorted(pair, reverse=number % 2 == 0)  # whoever comes second has the warmer processor
        print(json.dumps({name: tokens / pair[name]() for name in turn}), flush=True)


if __name__ == "__main__":
    main()

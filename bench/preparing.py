"""``python -m bench.preparing FOLDER``: prepares the volume ``claim`` in a folder as a training does, and says what it
took. A process of its own, started by ``bench.data``."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from slm_trainer.dataset.sets import prepare
from slm_trainer.encoding import encode
from slmkit import sources
from slmkit.registry import Registry
from slmkit.run import Context
from slmops.contract import Data, ExampleFormat, Filters, Sink, Source, TrainRun

LONGEST = 2048


class Words:
    """A tokenizer for which every word is a token."""

    eos_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [hash(word) & 0xFFFF for word in text.split()]}

    def apply_chat_template(
        self, messages: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool = False
    ) -> str:
        said = "".join(f"<{message['role']}> {message['content']} <end> " for message in messages)
        return said + "<assistant> " if add_generation_prompt else said


def main(folder: Path) -> dict[str, Any]:
    """Read, sift, encode; peak resident memory in bytes."""
    sources.PVC_ROOT = folder
    data = Data(source=Source(uri="pvc://claim/train.jsonl"), format=ExampleFormat.PROMPT_COMPLETION)
    filters = Filters(min_tokens=2, max_tokens=LONGEST)
    run = TrainRun(run="bench", train=data, filters=filters, output=Sink(repository="registry.example/bench"))
    context = Context(work=folder / "work")
    context.work.mkdir()
    begun = time.monotonic()
    sets = prepare(run, context, Registry(run.registry))
    records, _ = encode(Words(), sets.training, LONGEST, context.work / "tokens")
    return {
        "read": sets.tally.read, "kept": sets.tally.kept, "records": len(records),
        "tokens": int(records.lengths.sum()), "seconds": time.monotonic() - begun,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))

"""``python -m bench.preparing prepare|label FOLDER``: prepares the volume ``claim`` in a folder as a training does, or
labels it, and says what it took. A process of its own, started by ``bench.data``."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from slm_trainer.dataset.sets import prepare
from slm_trainer.encoding import encode
from slm_trainer.label import run as labelling
from slm_trainer.label.answers import Answer, Trouble
from slm_trainer.label.journal import Journal
from slm_trainer.label.questions import Questions
from slmkit import sources
from slmkit.registry import Registry
from slmkit.run import Context
from slmops.contract import Artifact, Data, ExampleFormat, Filters, LabelRun, Sink, Source, TrainRun

LONGEST = 2048
DATA = Data(source=Source(uri="pvc://claim/train.jsonl"), format=ExampleFormat.PROMPT_COMPLETION)
FILTERS = Filters(min_tokens=2, max_tokens=LONGEST)
SINK = Sink(repository="registry.example/bench")


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


class Echo:
    """A teacher that answers at once, with as much as it was asked."""

    name = "echo"

    def ask(self, questions: Questions, journal: Journal, context: Context) -> dict[str, Trouble]:
        """An answer to each."""
        for question in questions:
            if question.key not in journal:
                words = question.messages[-1]["content"]
                journal.add(question.key, Answer(words, len(words) // 4, len(words) // 4))
        return {}


def prepared(context: Context) -> tuple[int, int]:
    """Read, sift, encode. Returns (records read, records kept)."""
    run = TrainRun(run="bench", train=DATA, filters=FILTERS, output=SINK)
    sets = prepare(run, context, Registry(run.registry))
    encode(Words(), sets.training, LONGEST, context.work / "tokens")
    return sets.tally.read, sets.tally.kept


def labelled(context: Context) -> tuple[int, int]:
    """Read, ask, sift; all but the pushing."""
    labelling._teacher = lambda *_: Echo()
    labelling.publish = lambda *_: Artifact(reference=f"registry.example/bench@sha256:{'0' * 64}", size=0)
    report = labelling.label(LabelRun(run="bench", train=DATA, filters=FILTERS, output=SINK), context)
    assert report.dataset is not None
    return report.dataset.prompts, report.dataset.kept


def main(what: str, folder: Path) -> dict[str, Any]:
    """Do it; peak resident memory in bytes."""
    sources.PVC_ROOT = folder
    context = Context(work=folder / "work")
    context.work.mkdir()
    begun = time.monotonic()
    read, kept = {"prepare": prepared, "label": labelled}[what](context)
    return {
        "read": read, "kept": kept, "seconds": time.monotonic() - begun,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))

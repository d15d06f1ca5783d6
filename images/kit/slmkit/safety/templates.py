"""Chat templates: small programs of strangers, that loaders run in Jinja's sandbox.

The sandbox keeps them from Python's insides, and not from using all of a machine's time and memory. So each is tried
once on a short conversation, by itself, in a process that has little of both (``trial.py``).
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from slmkit.safety.text import read_object, unsafe

LIMIT = 256 << 10
"""Characters of a template; those of published models with tools have some 20,000."""
MOST = 32
"""Templates of a model."""
SECONDS, MEMORY, OUTPUT = 5, 1 << 30, 1 << 20
"""What the trial may take: CPU, address space in bytes, and characters of the result."""
CONVERSATION = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4"},
                {"role": "user", "content": "And 3 + 3?"}]  # fmt: skip
TRIAL = Path(__file__).with_name("trial.py")
UNDONE, TOO_LONG, SYNTAX = 3, 4, 5
"""Exit codes of the trial; an error of the template's own (it wants other roles) is none of ours."""


def check_templates(files: Iterable[Path]) -> None:
    """Raise RunFailed for a template that asks for files, or for too much of the machine."""
    for number, (path, text) in enumerate(_templates(files)):
        if number >= MOST:
            raise unsafe(path, f"more than {MOST} chat templates")
        if len(text) > LIMIT:
            raise unsafe(path, f"a chat template of more than {LIMIT} characters")
        done = _tried(text, SECONDS, MEMORY)
        if done.returncode == SYNTAX:
            raise unsafe(path, f"the chat template is not one: {done.stderr.strip()[:200]}")
        if done.returncode == TOO_LONG:
            raise unsafe(path, f"the chat template makes more than {OUTPUT} characters of three short messages")
        if done.returncode not in (0, UNDONE):
            raise unsafe(path, f"the chat template takes more than {SECONDS} s or {MEMORY >> 20} MiB for three short "
                         "messages")  # fmt: skip


@lru_cache(MOST)
def _tried(text: str, seconds: int, memory: int) -> "subprocess.CompletedProcess[str]":
    """The trial at its end. A model often has the same template in several files: it is tried once."""
    asked = {"template": text, "messages": CONVERSATION, "seconds": seconds, "memory": memory, "output": OUTPUT}
    command = [sys.executable, "-I", str(TRIAL)]
    return subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)


def _templates(files: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    for path in files:
        if path.suffix == ".jinja":
            text = path.read_bytes()[: LIMIT * 4 + 1]
            yield path, text.decode("utf-8", "replace")
        elif path.name == "chat_template.json" or path.name.endswith("config.json"):
            yield from ((path, text) for text in _texts(path, read_object(path).get("chat_template")))


def _texts(path: Path, found: Any) -> list[str]:
    """The templates in a setting, in any form that transformers takes: a text, texts by name, a list of both. What is
    of another form is not tried, so it is not let in."""
    if isinstance(found, list):
        texts = [one.get("template") if isinstance(one, dict) else None for one in found]
    elif isinstance(found, dict):
        texts = list(found.values())
    else:
        texts = [] if found is None else [found]
    known = [text for text in texts if isinstance(text, str)]
    if len(known) < len(texts):
        raise unsafe(path, "chat_template is no text, no object of texts and no list of {name, template}")
    return known

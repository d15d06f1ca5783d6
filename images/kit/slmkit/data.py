"""Data sets as JSON Lines, read one record at a time; what cannot be used is refused with file, line and reason."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from slmkit.run import RunFailed
from slmops.contract import Data, ExampleFormat, Reason

ROLES = ("system", "user", "assistant")
LINE_LIMIT = 4 << 20
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Example:
    """One record: a conversation up to the answer, and the answer where there is one."""

    prompt: tuple[dict[str, str], ...]
    """``{"role", "content"}`` messages; the last is the user's."""
    completion: str | None

    def messages(self) -> list[dict[str, str]]:
        """The whole conversation."""
        answer = [] if self.completion is None else [{"role": "assistant", "content": self.completion}]
        return [*self.prompt, *answer]


def read_examples(data: Data, folder: Path) -> Iterator[Example]:
    """The records of a data set that was fetched into ``folder``."""
    if data.path and (data.path.startswith("/") or ".." in Path(data.path).parts):
        raise RunFailed(Reason.INVALID_DATA, f"{data.path} leaves the data set")
    files = [folder / data.path] if data.path else sorted(folder.rglob("*.jsonl"))
    if not files or not all(file.is_file() for file in files):
        raise RunFailed(Reason.INVALID_DATA, f"{data.source.uri} holds no {data.path or '*.jsonl'}")
    for file in files:
        name = str(file.relative_to(folder))
        with file.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(LINE_LIMIT + 1), b""), 1):
                if line.strip():
                    yield _example(line, data.format, f"{name} line {number}")


def _example(line: bytes, format: ExampleFormat, where: str) -> Example:
    if len(line) > LINE_LIMIT:
        raise RunFailed(Reason.INVALID_DATA, f"{where}: longer than {LINE_LIMIT} bytes")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RunFailed(Reason.INVALID_DATA, f"{where}: not JSON: {error}") from None
    if not isinstance(record, dict):
        raise RunFailed(Reason.INVALID_DATA, f"{where}: an object is expected, found {type(record).__name__}")
    return _messages(record, where) if format is ExampleFormat.MESSAGES else _prompt_completion(record, where)


def _messages(record: dict[str, Any], where: str) -> Example:
    found = record.get("messages")
    if not isinstance(found, list) or not found:
        raise RunFailed(Reason.INVALID_DATA, f"{where}: messages: a list of messages is expected")
    messages = []
    for index, message in enumerate(found):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in ROLES:
            raise RunFailed(
                Reason.INVALID_DATA, f"{where}: messages[{index}].role: one of {', '.join(ROLES)} is expected"
            )
        if not _is_text(content):
            raise RunFailed(Reason.INVALID_DATA, f"{where}: messages[{index}].content: text is expected")
        messages.append({"role": role, "content": content})
    completion = messages.pop()["content"] if messages[-1]["role"] == "assistant" else None
    if not messages or messages[-1]["role"] != "user":
        raise RunFailed(Reason.INVALID_DATA, f"{where}: messages: a user's message is expected before the answer")
    return Example(tuple(messages), completion)


def _prompt_completion(record: dict[str, Any], where: str) -> Example:
    prompt, completion = record.get("prompt"), record.get("completion")
    if not _is_text(prompt):
        raise RunFailed(Reason.INVALID_DATA, f"{where}: prompt: text is expected")
    if completion is not None and not _is_text(completion):
        raise RunFailed(Reason.INVALID_DATA, f"{where}: completion: text is expected, or nothing")
    return Example(({"role": "user", "content": prompt},), completion)


def _is_text(value: object) -> TypeGuard[str]:
    """Half of a surrogate pair is valid JSON, and no text: no tokenizer and no file takes it."""
    return isinstance(value, str) and value.strip() != "" and not SURROGATE.search(value)


def write_messages(path: Path, examples: Iterable[Example]) -> int:
    """Write records in Messages format. Returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps({"messages": example.messages()}, ensure_ascii=False, sort_keys=True) + "\n")
            count += 1
    return count

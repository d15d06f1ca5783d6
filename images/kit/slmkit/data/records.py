"""What a record is, in each of the formats, and what is wrong with one that is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from slmkit.data.limits import LINE_LIMIT, invalid, shown
from slmops.contract import Data, ExampleFormat

ROLES = ("system", "user", "assistant")
COLUMNS = {
    ExampleFormat.MESSAGES: ("messages",),
    ExampleFormat.PROMPT_COMPLETION: ("prompt", "completion", "rejected"),
    ExampleFormat.TEXT: ("text",),
    ExampleFormat.CLASSIFICATION: ("text", "label"),
}
"""The fields of a record; the first has to be there."""
CATEGORY = "category"
"""A field that a record of any format may have: what it is about."""


@dataclass(frozen=True)
class Example:
    """One record: a conversation up to the answer, and the answer where there is one; or a plain text."""

    prompt: tuple[dict[str, str], ...]
    """``{"role", "content"}`` messages; the last is the user's. Empty: a plain text, which is ``completion``."""
    completion: str | None
    category: str | None = None
    """What the record is about, where it says so."""
    rejected: str | None = None
    """An answer that is worse than ``completion``, where there is one."""
    origin: str = field(default="", compare=False, repr=False)
    """File, and line or row: for whoever has to mend it. No part of what the record says."""

    def place(self, number: int) -> str:
        """Where it stands, for a message; ``number`` tells a record that was made here."""
        return self.origin or f"record {number}"

    def messages(self) -> list[dict[str, str]]:
        """The whole conversation."""
        answer = [] if self.completion is None else [{"role": "assistant", "content": self.completion}]
        return [*self.prompt, *answer]

    def told(self, system: str) -> "Example":
        """The same with this system message in place of its own."""
        said = (message for message in self.prompt if message["role"] != "system")
        return replace(self, prompt=({"role": "system", "content": system}, *said))

    @property
    def plain(self) -> bool:
        """Whether it is a text to learn as a whole, without prompt and answer."""
        return not self.prompt


def columns(data: Data) -> dict[str, str]:
    """The fields that a record of this data set can have -> the names that they have in its files."""
    return {name: data.columns.get(name, name) for name in (*COLUMNS[data.format], CATEGORY)}


def example(fields: Mapping[str, Any], data: Data, where: str) -> Example:
    """The record in a row of a file. Raises RunFailed, which names ``where`` and what is wrong."""
    named = columns(data)
    found = {name: fields.get(column) for name, column in named.items()}
    category = _word(found[CATEGORY], f"{where}: {named[CATEGORY]}")
    match data.format:
        case ExampleFormat.MESSAGES:
            return _messages(found["messages"], category, where, named["messages"])
        case ExampleFormat.PROMPT_COMPLETION:
            prompt = _text(found["prompt"], f"{where}: {named['prompt']}")
            answer = _optional(found["completion"], f"{where}: {named['completion']}")
            worse = _optional(found["rejected"], f"{where}: {named['rejected']}")
            if worse is not None and worse == answer:
                raise invalid(where, f"{named['rejected']}: the same as {named['completion']}")
            return Example(({"role": "user", "content": prompt},), answer, category, worse, origin=where)
        case ExampleFormat.TEXT:
            return Example((), _text(found["text"], f"{where}: {named['text']}"), category, origin=where)
        case ExampleFormat.CLASSIFICATION:
            text = _text(found["text"], f"{where}: {named['text']}")
            label = _word(found["label"], f"{where}: {named['label']}")
            if label is not None and data.labels and label not in data.labels:
                raise invalid(where, f"{named['label']}: {shown(label)!r} is none of the declared labels")
            return Example(({"role": "user", "content": text},), label, category, origin=where)


def _messages(found: object, category: str | None, where: str, name: str) -> Example:
    if not isinstance(found, list) or not found:
        raise invalid(where, f"{name}: a list of messages is expected{_instead(found)}")
    messages = []
    for index, message in enumerate(found):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in ROLES:
            raise invalid(where, f"{name}[{index}].role: one of {', '.join(ROLES)} is expected")
        messages.append({"role": role, "content": _text(content, f"{where}: {name}[{index}].content")})
    completion = messages.pop()["content"] if messages[-1]["role"] == "assistant" else None
    if not messages or messages[-1]["role"] != "user":
        raise invalid(where, f"{name}: a user's message is expected before the answer")
    return Example(tuple(messages), completion, category, origin=where)


def _word(value: object, where: str) -> str | None:
    """A label or a category: a text, or a whole number, which stands for itself."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _optional(value, where)


def _optional(value: object, where: str) -> str | None:
    return None if value is None else _text(value, where)


def _text(value: object, where: str) -> str:
    if _is_text(value):
        return value
    raise invalid(where, f"text is expected{_instead(value)}")


def _is_text(value: object) -> TypeGuard[str]:
    """Half of a surrogate pair is valid JSON, and no text: no tokenizer and no file takes it. Nor is a NUL."""
    return (
        isinstance(value, str)
        and value.strip() != ""
        and "\0" not in value
        and len(value) <= LINE_LIMIT
        and _encodes(value)
    )


def _instead(value: object) -> str:
    if value is None:
        return ", found nothing"
    if not isinstance(value, str):
        return f", found {type(value).__name__}"
    if not value.strip():
        return ", found an empty one"
    if len(value) > LINE_LIMIT:
        return f", found one of more than {LINE_LIMIT} characters"
    if "\0" in value:
        return ", found one with a NUL character"
    return ", found text" if _encodes(value) else ", found one with half of a character"


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True

"""Examples -> records of tokens: chat template, and where the answer begins."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from jinja2 import TemplateError

from slm_trainer.store import Record, TokenStore, Writer
from slm_trainer.template import ANSWER, QUESTION
from slmkit.data import Example
from slmkit.run import RunFailed
from slmops.contract import Reason

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""For tokenizers that are made here: a marker for each role, one for the end."""
SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


def ends(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: all that the model's generation settings name, and the tokenizer's own. Chat models often
    end a turn with another token than a text, and their tokenizer names only one of the two."""
    named = model.generation_config.eos_token_id
    found = [*named] if isinstance(named, list | tuple) else [named]
    return [token for token in dict.fromkeys([*found, tokenizer.eos_token_id]) if token is not None]


def turn_end(tokenizer: Any) -> int | None:
    """The token that the chat template writes at the end of an answer. None where it writes none that stands for nothing
    else, a special or an added one: no other is seen by whoever generates."""
    said = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    try:
        whole = tokenizer.apply_chat_template(said, tokenize=False)
    except Exception:  # what a template does may fail in any way; whoever needs this conversation says so
        return None
    known = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()} - {tokenizer.unk_token_id}
    for token in tokenizer(whole.rpartition(ANSWER)[2], add_special_tokens=False)["input_ids"]:
        if token in known:
            return int(token)
        if tokenizer.decode([token]).strip():
            break
    return None


def until(tokens: Sequence[int], stops: Collection[int]) -> int | None:
    """Where the first of the tokens is that ends an answer; None where none does."""
    return next((at for at, token in enumerate(tokens) if token in stops), None)


def name_ends(model: Any, tokenizer: Any) -> None:
    """Have the model's generation settings name all tokens that end an answer, the chat template's own among them: servers
    and converters read them there."""
    found = dict.fromkeys([*ends(model, tokenizer), turn_end(tokenizer)])
    named = [token for token in found if token is not None]
    if named:
        model.generation_config.eos_token_id = named if len(named) > 1 else named[0]


def prompt_tokens(tokenizer: Any, example: Example) -> list[int]:
    """The conversation up to where the answer begins."""
    text = _written(tokenizer, list(example.prompt), add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@overload
def encode(tokenizer: Any, examples: Iterable[Example], longest: int) -> tuple[list[Record], int]: ...
@overload
def encode(tokenizer: Any, examples: Iterable[Example], longest: int, into: Path) -> tuple[TokenStore, int]: ...
def encode(
    tokenizer: Any, examples: Iterable[Example], longest: int, into: Path | None = None
) -> tuple[Sequence[Record], int]:
    """Records, and how many examples were longer than ``longest`` tokens and therefore dropped.

    With ``into``, a folder, the records are kept there instead of in memory. A plain text is never too long: it is cut
    into as many records as it needs."""
    dropped = 0

    def made() -> Iterator[Record]:
        nonlocal dropped
        for example in examples:
            records = _pieces(tokenizer, example, longest) if example.plain else _answer(tokenizer, example, longest)
            dropped += not records
            yield from records

    if into is None:
        return list(made()), dropped
    with Writer(into) as writer:
        writer.extend(made())
    return TokenStore(into), dropped


def texts(tokenizer: Any, example: Example) -> tuple[str, str | None]:
    """(prompt, answer with its end) as the chat template writes them. No answer where the template begins one in another
    way than it writes one."""
    prompt = _written(tokenizer, list(example.prompt), add_generation_prompt=True)
    whole = _written(tokenizer, example.messages())
    return prompt, whole[len(prompt) :] if whole.startswith(prompt) else None


def _written(tokenizer: Any, messages: Sequence[Any], **how: bool) -> str:
    """A conversation as the chat template writes it. Some refuse what they do not know: a system's message, two of the
    user's in a row."""
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **how))
    except TemplateError as error:
        raise RunFailed(
            Reason.UNSUPPORTED_MODEL, f"the model's chat template does not write a record: {error}"
        ) from None


def _answer(tokenizer: Any, example: Example, longest: int) -> list[Record]:
    prompt, answer = texts(tokenizer, example)
    if answer is None:
        raise RunFailed(Reason.UNSUPPORTED_MODEL, "the chat template begins an answer in another way than it writes "
                        "one: what is trained would not be what is generated")  # fmt: skip
    head = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    # Prompt and answer are cut apart as text, so that training sees the very tokens that generation starts from.
    tail = list(tokenizer(answer, add_special_tokens=False)["input_ids"])
    return [Record(head + tail, len(head))] if len(head) + len(tail) <= longest else []


def _pieces(tokenizer: Any, example: Example, longest: int) -> list[Record]:
    """A plain text and its end. Every token is learned, but the first of a piece, which nothing predicts."""
    tokens = [*tokenizer(example.completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    pieces = [tokens[begin : begin + longest] for begin in range(0, len(tokens), longest)]
    return [Record(piece, 0) for piece in pieces if len(piece) > 1]

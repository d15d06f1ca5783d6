"""A tokenizer for tests without the libraries of models: each byte is a token; the chat template is a real one."""

import re
from collections.abc import Mapping
from typing import Any

import jinja2

from slm_trainer.encoding import CHAT_TEMPLATE


class Letters:
    """What ``encode`` needs of a tokenizer of transformers. ``added``: tokens beside the bytes, none of them special but
    that for what is not known, ``<unk>``, where it is among them."""

    eos_token_id = 256

    def __init__(self, template: str = CHAT_TEMPLATE, added: Mapping[str, int] | None = None) -> None:
        environment = jinja2.Environment(autoescape=False)
        environment.globals["raise_exception"] = _refuse
        self._template = environment.from_string(template)
        self._added = dict(added or {})
        self.unk_token_id = self._added.get("<unk>")
        self.all_special_ids = [256] if self.unk_token_id is None else [256, self.unk_token_id]

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        parts = re.split(f"({'|'.join(map(re.escape, self._added))})", text) if self._added else [text]
        return {"input_ids": [token for part in parts for token in self._tokens(part)]}

    def _tokens(self, part: str) -> list[int]:
        return [self._added[part]] if part in self._added else list(part.encode())

    def decode(self, tokens: list[int]) -> str:
        names = {number: text for text, number in self._added.items()}
        return "".join(names.get(token) or chr(token) for token in tokens)

    def get_added_vocab(self) -> dict[str, int]:
        return self._added

    def apply_chat_template(
        self, messages: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool = False
    ) -> Any:
        assert not tokenize
        return self._template.render(messages=messages, add_generation_prompt=add_generation_prompt)


def _refuse(message: str) -> None:
    raise ValueError(message)

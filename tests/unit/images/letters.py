"""A tokenizer for tests without the libraries of models: each byte is a token; the chat template is a real one."""

from typing import Any

import jinja2

from slm_trainer.encoding import CHAT_TEMPLATE


class Letters:
    """What ``encode`` needs of a tokenizer of transformers."""

    eos_token_id = 256

    def __init__(self, template: str = CHAT_TEMPLATE) -> None:
        self._template = jinja2.Environment(autoescape=False).from_string(template)

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": list(text.encode())}

    def apply_chat_template(
        self, messages: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool = False
    ) -> Any:
        assert not tokenize
        return self._template.render(messages=messages, add_generation_prompt=add_generation_prompt)

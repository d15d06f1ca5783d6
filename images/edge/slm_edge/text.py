"""Text on its way in and out: the model's own chat template, and stop texts that come in pieces."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Held:
    """Text on its way out, held back as long as it could be the beginning of a stop text."""

    def __init__(self, stops: list[str]) -> None:
        self._stops = stops
        self._text = ""
        self.stopped = False

    def add(self, piece: str) -> str:
        """Take in a piece; what may go out."""
        if not self._stops:
            return piece
        self._text += piece
        found = [(at + len(stop), at) for stop in self._stops if (at := self._text.find(stop)) >= 0]
        if found:  # what is complete first ends the answer, however the text was cut into pieces
            self.stopped = True
            self._text, out = "", self._text[: min(found)[1]]
            return out
        keep = max((n for stop in self._stops for n in range(1, len(stop)) if self._text.endswith(stop[:n])), default=0)
        cut = len(self._text) - keep
        out, self._text = self._text[:cut], self._text[cut:]
        return out

    def rest(self) -> str:
        """What is left at the end."""
        out, self._text = self._text, ""
        return "" if self.stopped else out


def chat_template(folder: Path) -> Callable[[list[dict[str, str]]], str]:
    """The model's own template, in a sandbox: a template is a program, and this one came with the model."""
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    settings = json.loads(config.read_text()) if config.exists() else {}
    source = file.read_text() if file.exists() else settings.get("chat_template")
    if not isinstance(source, str):
        raise FileNotFoundError(f"{folder} holds no chat template")
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    # What transformers gives to templates, and they therefore count on.
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    template = environment.from_string(source)
    special = {key: _content(settings.get(key)) for key in ("bos_token", "eos_token")}

    def render(messages: list[dict[str, str]]) -> str:
        return template.render(messages=messages, add_generation_prompt=True, **special)

    return render


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _content(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")

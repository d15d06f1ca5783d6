"""Chat templates of strangers: small programs, tried before a model is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest

from slmkit.safety import check_model_folder, templates
from slmops.contract import Reason
from tests.unit.images.modelfolder import refused

PLAIN = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}{% generation %}x{% endgeneration %}"
PICKY = "{% if messages|length > 1 %}{{ raise_exception('one message only') }}{% endif %}"
BEYOND = "takes more than 1 s or 256 MiB"
TEMPLATE_BOMBS = {
    "a loop of loops": ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", BEYOND),
    "a long text": ("{{ 'x' * 10000000 }}", "makes more than"),
    "a huge text": ("{{ ('x' * 1000000000) * 10 }}", BEYOND),
    "doubling": ("{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
                 BEYOND),
    "a power": ("{{ 10 ** (10 ** 10) }}", BEYOND),
    "another file": ("{% include '/etc/passwd' %}", "reads another file"),
    "another template": ("{% extends 'base' %}", "reads another file"),
    "a module": ("{% import 'os' as os %}", "reads another file"),
    "no template": ("{% for %}", "is not one"),
    "depth": ("{% if a %}" * 5000, "is not one"),
}  # fmt: skip


@pytest.mark.parametrize("template", [PLAIN, PICKY, "{{ ''.__class__.__mro__ }}", ""])
def test_a_chat_template_passes(tmp_path: Path, template: str) -> None:
    """Also one that the sandbox stops where it is used: it may try, and gets nothing."""
    (tmp_path / "chat_template.jinja").write_text(template)
    check_model_folder(tmp_path)


@pytest.mark.parametrize("bomb", TEMPLATE_BOMBS)
def test_a_chat_template_that_would_eat_a_machine_is_refused(
    tmp_path: Path, bomb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "SECONDS", 1)
    monkeypatch.setattr(templates, "MEMORY", 256 << 20)
    template, words = TEMPLATE_BOMBS[bomb]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    assert refused(tmp_path, "tokenizer_config.json", "chat template", words) is Reason.UNSAFE_SOURCE


BAD = "{% include 'x' %}"
FORMS: dict[str, Any] = {
    "a text": BAD, "a list": [{"name": "default", "template": PLAIN}, {"name": "tools", "template": BAD}],
    "by name": {"default": PLAIN, "tools": BAD},
}  # fmt: skip


@pytest.mark.parametrize(
    "file", ["tokenizer_config.json", "chat_template.json", "processor_config.json", "preprocessor_config.json"]
)
@pytest.mark.parametrize("form", FORMS)
def test_every_place_of_a_chat_template_is_looked_at(tmp_path: Path, file: str, form: str) -> None:
    (tmp_path / file).write_text(json.dumps({"chat_template": FORMS[form]}))
    refused(tmp_path, file, "reads another file")


@pytest.mark.parametrize("file", ["chat_template.jinja", "additional_chat_templates/tools.jinja"])
def test_a_chat_template_of_its_own_file_is_looked_at(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(BAD)
    refused(tmp_path, "jinja", "reads another file")


@pytest.mark.parametrize("form", [5, True, ["x"], [{"name": "x"}], {"default": {"template": "x"}}, {"a": None}, [None]])
def test_a_chat_template_of_another_form_is_not_let_in_untried(tmp_path: Path, form: Any) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": form}))
    refused(tmp_path, "tokenizer_config.json", "chat_template is no text")


def test_not_more_chat_templates_are_tried_than_models_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MOST", 2)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": dict.fromkeys("abc", "x")}))
    refused(tmp_path, "more than 2 chat templates")


def test_a_chat_template_beyond_all_measure_is_not_tried(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("x" * (templates.LIMIT + 1))
    refused(tmp_path, "more than")

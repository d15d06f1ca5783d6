"""A chat template of the user's own is tried before the training, and a fault is named with its line."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("torch")

from slm_trainer.encoding import CHAT_TEMPLATE, encode
from slm_trainer.model import load_tokenizer, train_tokenizer
from slm_trainer.template import set_template
from slmkit.data import Example
from slmkit.run import RunFailed
from slmops.contract import Reason

OWN = """{% for message in messages %}
{{ '[' + message.role + '] ' + message.content + eos_token }}
{% endfor %}
{% if add_generation_prompt %}
{{ '[assistant] ' }}
{%- endif %}"""
TALK = [Example(({"role": "user", "content": "How many?"},), "Seven.")]


def tokenizer() -> Any:
    return train_tokenizer(TALK * 3, 300)


@pytest.mark.parametrize("template", [OWN, CHAT_TEMPLATE])
def test_a_good_template_shapes_what_is_trained(template: str) -> None:
    made = tokenizer()
    set_template(made, template)
    (record,), dropped = encode(made, TALK, 100)
    assert dropped == 0
    text = made.decode(record.tokens)
    answer = made.decode(record.tokens[record.start :])
    assert ("[user] How many?" in text) == (template == OWN)
    assert answer.startswith("Seven.")


def test_the_template_goes_with_the_model(tmp_path: Path) -> None:
    made = tokenizer()
    made.save_pretrained(tmp_path)
    changed = load_tokenizer(tmp_path, OWN)
    changed.save_pretrained(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").chat_template == OWN


def test_a_tokenizer_without_a_template_is_helped_by_one(tmp_path: Path) -> None:
    made = tokenizer()
    made.chat_template = None
    made.save_pretrained(tmp_path)
    with pytest.raises(RunFailed, match=r"data\.template"):
        load_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path, OWN).chat_template == OWN


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}\n{{ m.content }}\n{% endif %}", "line 3: "),
        ("a\n\n{{ messages[0].content.no.such }}", "line 3: "),
        ("{% for m in messages %}{{ m.content }}\n{{ raise_exception('no system, please') }}{% endfor %}",
         "line 2: no system, please"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "a user's message is not in the text"),
        ("{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}", "the answer is not in the text"),
        ("{% for m in messages %}<{{ m.content }}>{% endfor %}{% if add_generation_prompt %}Answer: {% endif %}",
         "an answer begins in another way"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_refused_with_its_line(template: str, words: str) -> None:
    with pytest.raises(RunFailed) as failed:
        set_template(tokenizer(), template)
    assert failed.value.reason is Reason.INVALID_TEMPLATE
    assert failed.value.message.startswith("data.template: ")
    assert words in failed.value.message


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    ],
)
def test_a_template_reaches_nothing_but_the_conversation(template: str) -> None:
    with pytest.raises(RunFailed) as failed:
        set_template(tokenizer(), OWN + template)
    assert failed.value.reason is Reason.INVALID_TEMPLATE

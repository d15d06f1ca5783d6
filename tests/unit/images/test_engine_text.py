"""Text on its way in and out of the engine: templates that are programs, and stop texts that come in pieces."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("jinja2")

from slm_edge.engine import Engine
from slm_edge.openai import ApiError
from slm_edge.text import Held, chat_template
from tests.unit.images.fakeedge import PATIENCE, FakeGenAI, ask, make_engine, model_folder, request


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, library: FakeGenAI, tmp_path: Path) -> Engine:
    model_folder(tmp_path)
    engine = make_engine(monkeypatch, library, tmp_path)
    engine.start()
    assert engine.ready.wait(PATIENCE), engine.failure
    return engine


def told(stops: list[str], text: list[str]) -> tuple[str, bool]:
    held = Held(stops)
    out = ""
    for piece in text:
        out += held.add(piece)
        if held.stopped:
            break
    return out + held.rest(), held.stopped


@pytest.mark.parametrize(
    ("stops", "text", "out", "stopped"),
    [
        ([], "abc", "abc", False),
        (["b"], "abc", "a", True),
        (["bc"], "abc", "a", True),
        (["bx"], "abc", "abc", False),
        (["abc"], "abc", "", True),
        (["END", "\n"], "a\nbEND", "a", True),
        (["\n", "END"], "aEND\n", "a", True),
        (["aab"], "aaab", "a", True),
        (["abab"], "abaabab", "aba", True),
        (["bc", "abc"], "abcd", "", True),
        (["abcd", "bc"], "abcd", "a", True),
        (["xy"], "abx", "abx", False),
    ],
)
def test_an_answer_ends_before_the_stop_text_that_is_complete_first(
    stops: list[str], text: str, out: str, stopped: bool
) -> None:
    assert told(stops, list(text)) == (out, stopped), "letter by letter"
    assert told(stops, [text]) == (out, stopped), "at once"
    for cut in range(len(text)):
        assert told(stops, [text[:cut], text[cut:]]) == (out, stopped), f"cut at {cut}"


@given(st.lists(st.text("ab", min_size=1, max_size=3), max_size=3), st.lists(st.text("abc", max_size=4), max_size=6))
def test_how_the_text_is_cut_into_pieces_does_not_matter(stops: list[str], text: list[str]) -> None:
    whole = "".join(text)
    ends = [(at + len(stop), at) for stop in stops if (at := whole.find(stop)) >= 0]
    assert told(stops, text) == ((whole[: min(ends)[1]], True) if ends else (whole, False))


@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=3), st.text("abc", max_size=12))
def test_nothing_goes_out_that_could_be_the_beginning_of_a_stop_text(stops: list[str], text: str) -> None:
    held, out = Held(stops), ""
    for read in range(1, len(text) + 1):
        out += held.add(text[read - 1])
        if held.stopped:
            break
        begun = [n for stop in stops for n in range(1, len(stop)) if text[:read].endswith(stop[:n])]
        assert len(out) == read - max(begun, default=0), "and all else goes out at once"


def test_text_is_held_no_longer_than_needed() -> None:
    held = Held(["END"])
    assert [held.add(letter) for letter in "aEENb"] == ["a", "", "E", "", "ENb"]


def rendered(folder: Path, template: str, messages: list[dict[str, str]] | None = None, **settings: Any) -> str:
    (folder / "chat_template.jinja").write_text(template)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return chat_template(folder)(messages or [{"role": "user", "content": "q"}])


def test_a_template_has_what_transformers_gives_it(tmp_path: Path) -> None:
    assert (
        rendered(tmp_path, "{{ bos_token }}{{ eos_token }}", bos_token="<s>", eos_token={"content": "</s>"})
        == "<s></s>"
    )
    assert rendered(tmp_path, "{{ messages | tojson }}", [{"role": "user", "content": "<ä'&>"}]) == (
        '[{"role": "user", "content": "<ä\'&>"}]'
    )
    assert rendered(tmp_path, "{% for i in range(9) %}{% if i > 1 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"
    assert rendered(tmp_path, "{% if true %}\n  a\n  {% endif %}\nb") == "  a\nb"
    assert rendered(tmp_path, "{{ strftime_now('%Y') | length }}") == "4"


def test_the_template_may_be_part_of_the_tokenizers_settings(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages[0].content }}"}))
    assert chat_template(tmp_path)([{"role": "user", "content": "q"}]) == "q"


@pytest.mark.parametrize("settings", ["{}", '{"chat_template": [{"name": "x"}]}'])
def test_a_folder_without_a_template_is_refused(tmp_path: Path, settings: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(settings)
    with pytest.raises(FileNotFoundError, match="no chat template"):
        chat_template(tmp_path)


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.__class__.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}", "{{ self.__init__.__globals__ }}",
    "{{ messages.append(1) }}", "{{ messages[0].update({'role': 'system'}) }}", "{{ range(10**9) | list }}",
    "{{ strftime_now.__globals__.sys }}", "{{ raise_exception.__globals__.sys }}", "{{ x.y }}",
    "{% include '/etc/passwd' %}", "{% import 'os' as os %}", "{{ raise_exception('only user and assistant') }}",
    "{{ 1 + messages[0].content }}", "{{ messages[9].content }}",
]  # fmt: skip


@pytest.mark.parametrize("template", ESCAPES)
async def test_what_a_template_may_not_do_is_the_requests_failure(
    engine: Engine, tmp_path: Path, template: str
) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "chat_template.jinja").write_text(template)
    engine._backend._template = chat_template(tmp_path / "t")  # type: ignore[attr-defined]
    messages = [{"role": "user", "content": "q"}]
    with pytest.raises(ApiError) as error:
        await ask(engine, request(messages)[0])
    assert (error.value.status, error.value.param) == (400, "messages")
    assert messages == [{"role": "user", "content": "q"}]


async def test_what_a_user_writes_is_no_template(engine: Engine, library: FakeGenAI) -> None:
    await ask(engine, request([{"role": "user", "content": "{{ 7 * 7 }}{% for"}])[0])
    assert library.prompts[-1] == "<user>{{ 7 * 7 }}{% for<a>"

"""Data sets: what is read, and that a bad record is named by file, line and field."""

import json
from pathlib import Path

import pytest

from slmkit.data import LINE_LIMIT, Example, read_examples, write_messages
from slmkit.run import RunFailed
from slmops.contract import Data, ExampleFormat, Reason, Source

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}


def data(format: str = "Messages", path: str | None = None) -> Data:
    return Data(source=Source(uri="oci://r.example/slm/data"), format=ExampleFormat(format), path=path)


def read(folder: Path, content: object, format: str = "Messages") -> list[Example]:
    line = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / "data.jsonl").write_bytes(line)
    return list(read_examples(data(format), folder))


def refused(folder: Path, content: object, format: str = "Messages") -> str:
    with pytest.raises(RunFailed) as failed:
        read(folder, content, format)
    assert failed.value.reason is Reason.INVALID_DATA
    return failed.value.message


def test_a_conversation_is_cut_before_its_last_answer(tmp_path: Path) -> None:
    system = {"role": "system", "content": "s"}
    messages = [system, USER, ANSWER, {"role": "user", "content": "q2"}, {"role": "assistant", "content": "a2"}]
    (example,) = read(tmp_path, {"messages": messages})
    assert list(example.prompt) == messages[:-1]
    assert example.completion == "a2"
    assert example.messages() == messages


def test_a_record_knows_where_it_stands_and_is_the_same_elsewhere(tmp_path: Path) -> None:
    lines = [{"messages": [USER, ANSWER]}, {"messages": [USER, ANSWER]}]
    first, second = read(tmp_path, "\n\n".join(map(json.dumps, lines)).encode())
    assert (first.place(9), second.place(9)) == ("data.jsonl line 1", "data.jsonl line 3")
    assert first == second == Example((USER,), "a")
    assert repr(first) == repr(second), "by which records are held out, wherever they stand"
    assert Example((USER,), "a").place(9) == "record 9"


@pytest.mark.parametrize(
    ("format", "record"),
    [
        ("PromptCompletion", {"prompt": "q", "completion": "a"}),
        ("Text", {"text": "t"}),
        ("Classification", {"text": "t", "label": "x"}),
    ],
)
def test_records_of_every_format_know_where_they_stand(tmp_path: Path, format: str, record: object) -> None:
    (example,) = read(tmp_path, record, format)
    assert example.origin == "data.jsonl line 1"


def test_a_conversation_may_lack_its_answer(tmp_path: Path) -> None:
    (example,) = read(tmp_path, {"messages": [USER]})
    assert (list(example.prompt), example.completion) == ([USER], None)
    assert example.messages() == [USER]


def test_prompt_and_completion_are_a_conversation(tmp_path: Path) -> None:
    (example,) = read(tmp_path, {"prompt": "q", "completion": "a", "more": 1}, "PromptCompletion")
    assert example == Example((USER,), "a")
    (example,) = read(tmp_path, {"prompt": "q"}, "PromptCompletion")
    assert example == Example((USER,), None)


def test_fields_beside_the_known_ones_are_left_out(tmp_path: Path) -> None:
    (example,) = read(tmp_path, {"messages": [USER | {"name": "ann"}, ANSWER], "id": 5})
    assert example == Example((USER,), "a")


def test_empty_lines_windows_lines_and_a_byte_order_mark_are_nothing(tmp_path: Path) -> None:
    line = json.dumps({"prompt": "q"}).encode()
    assert len(read(tmp_path, b"\xef\xbb\xbf" + line + b"\r\n\r\n  \n" + line, "PromptCompletion")) == 2


BAD: list[tuple[str, object, str]] = [
    ("Messages", b"{", "not JSON"),
    ("Messages", b"\xff\xfe{}", "not UTF-8: byte 1 is 0xff"),
    ("Messages", b'"\xc3("', "not UTF-8: byte 2 is 0xc3"),
    ("Messages", b'{"a\0": 1}', "not JSON"),
    ("Messages", b"[" * 100_000, "not JSON"),
    ("Messages", [USER], "an object is expected, found list"),
    ("Messages", 5, "an object is expected, found int"),
    ("Messages", None, "an object is expected, found NoneType"),
    ("Messages", {}, "messages: a list"),
    ("Messages", {"messages": []}, "messages: a list"),
    ("Messages", {"messages": {"role": "user"}}, "messages: a list"),
    ("Messages", {"messages": ["hi"]}, "messages[0].role"),
    ("Messages", {"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1].role"),
    ("Messages", {"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
    ("Messages", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("Messages", {"messages": [{"role": "user", "content": " \n"}]}, "messages[0].content"),
    ("Messages", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content"),
    ("Messages", {"messages": [{"role": "user", "content": "half \ud83d"}]}, "messages[0].content"),
    ("Messages", {"messages": [ANSWER]}, "a user's message is expected before the answer"),
    ("Messages", {"messages": [USER, ANSWER, ANSWER]}, "a user's message is expected before the answer"),
    ("Messages", {"messages": [{"role": "system", "content": "s"}]}, "a user's message is expected"),
    ("PromptCompletion", {"completion": "a"}, "prompt: text is expected"),
    ("PromptCompletion", {"prompt": ""}, "prompt: text is expected"),
    ("PromptCompletion", {"prompt": 5}, "prompt: text is expected"),
    ("PromptCompletion", {"prompt": "q", "completion": ""}, "completion: text is expected"),
    ("PromptCompletion", {"prompt": "q", "completion": ["a"]}, "completion: text is expected"),
    ("PromptCompletion", {"prompt": "q", "completion": "\udc00"}, "completion: text is expected, found one with half"),
    ("PromptCompletion", {"prompt": "q\0"}, "prompt: text is expected, found one with a NUL character"),
    ("PromptCompletion", {"prompt": "q", "category": 1.5}, "category: text is expected, found float"),
    ("Text", {"prompt": "q"}, "text: text is expected, found nothing"),
    ("Text", {"text": ["q"]}, "text: text is expected, found list"),
    ("Classification", {"text": "q", "label": True}, "label: text is expected, found bool"),
    ("Classification", {"label": "a"}, "text: text is expected, found nothing"),
]


@pytest.mark.parametrize(("format", "content", "words"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_record_is_named(tmp_path: Path, format: str, content: object, words: str) -> None:
    good = json.dumps({"messages": [USER], "prompt": "q", "text": "t"}).encode() + b"\n\n"
    line = content if isinstance(content, bytes) else json.dumps(content).encode()
    message = refused(tmp_path, good + line + b"\n" + good, format)
    assert message.startswith("data.jsonl line 3: ")
    assert words in message


def test_an_endless_line_is_refused_before_it_is_read(tmp_path: Path) -> None:
    message = refused(tmp_path, b'{"prompt": "' + b"x" * (2 * LINE_LIMIT), "PromptCompletion")
    assert message == f"data.jsonl line 1: longer than {LINE_LIMIT} bytes"


def test_a_line_of_the_longest_kind_is_read(tmp_path: Path) -> None:
    frame = len('{"prompt": ""}\n')
    (example,) = read(tmp_path, b'{"prompt": "' + b"x" * (LINE_LIMIT - frame) + b'"}\n', "PromptCompletion")
    assert len(example.prompt[0]["content"]) == LINE_LIMIT - frame


def test_the_records_before_a_bad_one_come_first(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"prompt": "q"}\n{')
    found = read_examples(data("PromptCompletion"), tmp_path)
    assert next(found).prompt == (USER,)
    with pytest.raises(RunFailed):
        next(found)


def test_all_files_are_read_in_order_and_a_bad_one_is_named_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.jsonl").write_text('{"prompt": "third"}\n')
    (tmp_path / "a.jsonl").write_text('{"prompt": "first"}\n{"prompt": "second"}')
    (tmp_path / "README.md").write_text("no data")
    found = [example.prompt[0]["content"] for example in read_examples(data("PromptCompletion"), tmp_path)]
    assert found == ["first", "second", "third"]
    (tmp_path / "b" / "1.jsonl").write_text("x")
    with pytest.raises(RunFailed, match=r"b/1\.jsonl line 1"):
        list(read_examples(data("PromptCompletion"), tmp_path))


def test_one_file_can_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "train.json").write_text('{"prompt": "chosen"}')
    (tmp_path / "other.jsonl").write_text("x")
    (example,) = read_examples(data("PromptCompletion", "deep/train.json"), tmp_path)
    assert example.prompt[0]["content"] == "chosen"


@pytest.mark.parametrize("path", ["missing.jsonl", "deep", None])
def test_data_that_is_not_there_is_named(tmp_path: Path, path: str | None) -> None:
    (tmp_path / "deep").mkdir()
    with pytest.raises(RunFailed) as failed:
        list(read_examples(data("Messages", path), tmp_path))
    assert failed.value.reason is Reason.INVALID_DATA
    assert (path or "*.jsonl") in failed.value.message
    assert "oci://r.example/slm/data" in failed.value.message


@pytest.mark.parametrize("path", ["../secret.json", "a/../../secret.json", "/etc/passwd", ".."])
def test_no_path_leaves_the_data_set(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.json").write_text('{"prompt": "canary"}')
    (tmp_path / "data").mkdir()
    with pytest.raises(RunFailed) as failed:
        list(read_examples(data("PromptCompletion", path), tmp_path / "data"))
    assert failed.value.reason is Reason.INVALID_DATA
    assert "leaves the data set" in failed.value.message


def test_what_is_written_can_be_read_and_is_the_same_each_time(tmp_path: Path) -> None:
    examples = [Example((USER,), "ä\n\u2028 \U0001f600"), Example((USER, ANSWER, USER), None)]
    assert write_messages(tmp_path / "data.jsonl", examples) == 2
    first = (tmp_path / "data.jsonl").read_bytes()
    assert list(read_examples(data(), tmp_path)) == examples
    write_messages(tmp_path / "data.jsonl", examples)
    assert (tmp_path / "data.jsonl").read_bytes() == first
    assert "ä".encode() in first, "text stays readable"

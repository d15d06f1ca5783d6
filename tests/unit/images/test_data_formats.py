"""The file formats of data sets: what is read, what is refused and how it is named, and what tries to do harm."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from slmkit.data import LINE_LIMIT, Example, limits, read_examples
from slmkit.run import RunFailed
from slmops.contract import Data, ExampleFormat, Reason, Source

QA = [{"q": "one", "a": "1"}, {"q": 'two\nlines, and a "comma"', "a": "2"}, {"q": "three", "a": None}]
EXPECTED = [("one", "1"), (QA[1]["q"], "2"), ("three", None)]
COLUMNS = {"prompt": "q", "completion": "a"}


def data(format: str = "PromptCompletion", columns: dict[str, str] | None = None, labels: tuple[str, ...] = ()) -> Data:
    return Data(source=Source(uri="oci://r.example/slm/data"), format=ExampleFormat(format), columns=columns or {},
                labels=labels)  # fmt: skip


def read(folder: Path, format: str = "PromptCompletion", **more: Any) -> list[Example]:
    return list(read_examples(data(format, **more), folder))


def refused(folder: Path, format: str = "PromptCompletion", reason: Reason = Reason.INVALID_DATA, **more: Any) -> str:
    with pytest.raises(RunFailed) as failed:
        read(folder, format, **more)
    assert failed.value.reason is reason
    assert len(failed.value.message) < 700
    assert failed.value.message.isprintable()
    return failed.value.message


def pairs(examples: list[Example]) -> list[tuple[str, str | None]]:
    return [(example.prompt[-1]["content"], example.completion) for example in examples]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = None, **options: Any) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema), path, **options)


def packed(text: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(text)


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write(folder: Path, suffix: str, rows: list[dict[str, Any]]) -> None:
    path = folder / f"data{suffix}"
    match suffix:
        case ".csv":
            write_csv(path, rows)
        case ".parquet":
            write_parquet(path, rows)
        case ".jsonl.zst":
            path.write_bytes(packed(lines(rows)))
        case _:
            path.write_bytes(lines(rows))


ALL = (".jsonl", ".jsonl.zst", ".csv", ".parquet")


@pytest.mark.parametrize("suffix", ALL)
def test_every_file_format_gives_the_same_records(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, suffix, [row | {"more": "x"} for row in QA])
    assert pairs(read(tmp_path, columns=COLUMNS)) == EXPECTED


@pytest.mark.parametrize("suffix", ALL)
def test_a_worse_answer_may_have_another_name(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, suffix, [{"q": "up?", "chosen": "yes", "bad": "no", "rejected": "not this"}])
    (example,) = read(tmp_path, columns={"prompt": "q", "completion": "chosen", "rejected": "bad"})
    assert (example.completion, example.rejected) == ("yes", "no")


@pytest.mark.parametrize("suffix", ALL)
def test_a_text_is_learned_as_a_whole(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, suffix, [{"body": "once upon a time", "kind": "tale"}])
    (example,) = read(tmp_path, "Text", columns={"text": "body", "category": "kind"})
    assert example == Example((), "once upon a time", "tale")
    assert example.plain


@pytest.mark.parametrize("suffix", ALL)
def test_a_label_is_the_answer_and_one_that_was_not_declared_is_refused(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, suffix, [{"text": "I like it", "label": "good"}, {"text": "so so", "label": "fair"}])
    assert pairs(read(tmp_path, "Classification")) == [("I like it", "good"), ("so so", "fair")]
    message = refused(tmp_path, "Classification", labels=("good", "bad"))
    unit = "line" if "jsonl" in suffix else "row"
    assert message == f"data{suffix} {unit} 2: label: 'fair' is none of the declared labels"


def test_labels_may_be_numbers(tmp_path: Path) -> None:
    for suffix in (".jsonl", ".parquet"):
        write(tmp_path, suffix, [{"text": "a", "label": 0}])
    assert [example.completion for example in read(tmp_path, "Classification")] == ["0", "0"]


def test_conversations_come_from_parquet_too(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "q", "name": "x"}, {"role": "assistant", "content": "a", "name": "x"}]
    write_parquet(tmp_path / "a.parquet", [{"messages": messages}])
    assert pairs(read(tmp_path, "Messages")) == [("q", "a")]


def test_all_formats_beside_each_other_are_read_in_order(tmp_path: Path) -> None:
    for name, suffix in zip("dcba", ALL, strict=True):
        (tmp_path / name).mkdir()
        write(tmp_path / name, suffix, [{"prompt": name}])
    (tmp_path / "notes.txt").write_text("no data")
    assert [prompt for prompt, _ in pairs(read(tmp_path))] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("suffix", ALL)
def test_a_bad_record_is_named_by_file_place_and_column(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, suffix, [{"q": "good", "a": "1"}, {"q": " ", "a": "2"}])
    unit = "line" if "jsonl" in suffix else "row"
    assert refused(tmp_path, columns=COLUMNS).startswith(f"data{suffix} {unit} 2: q: text is expected, found ")


@pytest.mark.parametrize("suffix", ALL)
def test_a_nul_is_no_text(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, suffix, [{"prompt": "good"}, {"prompt": "b\0d"}])
    assert "2: prompt: text is expected, found one with a NUL character" in refused(tmp_path)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, suffix, [{"question": "x", "answer": "y"}])
    message = refused(tmp_path)
    assert message.startswith(f"data{suffix}: no column prompt; there are question, answer")


def test_a_byte_order_mark_and_windows_lines_in_csv_are_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfprompt,completion\r\nq,a\r\n\r\nq2,\r\n")
    assert pairs(read(tmp_path)) == [("q", "a"), ("q2", None)]


BAD_CSV: list[tuple[bytes, str]] = [
    (b"", "no column prompt; there are none"),
    (
        b"prompt;completion\nq;a\n",
        "no column prompt; there are prompt;completion. The first row names the columns, divided",
    ),
    (b"prompt,prompt\nq,a\n", "two columns have the same name"),
    (b"prompt,completion\nq,a\nq\n", "row 2: 1 cells, while 2 columns are named"),
    (b"prompt,completion\nq,a,b\n", "row 1: 3 cells"),
    (b'prompt\n"q\n', "row 1: not CSV"),
    (b'prompt\n"q"x\n', "row 1: not CSV"),
    (b"prompt\nq\nb\xe9d\n", "line 3: not UTF-8: byte 2 is 0xe9"),
    (b"prompt\n" + b"x" * (LINE_LIMIT + 1), "line 2: longer than"),
    (b'prompt\n"' + (b"x" * 1023 + b"\n") * (LINE_LIMIT // 1024 + 1), "row 1: not CSV: field larger than field limit"),
    (b"prompt,\x1b[2J\nq\n", "row 1: 1 cells"),
]


@pytest.mark.parametrize(("content", "words"), BAD_CSV, ids=lambda value: str(value)[:30])
def test_bad_csv_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    message = refused(tmp_path)
    assert message.startswith("a.csv")
    assert words in message


def test_conversations_do_not_fit_into_cells(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"messages": "[]"}])
    assert "use format PromptCompletion" in refused(tmp_path, "Messages")


BAD_PARQUET: list[tuple[str, pa.Schema, list[dict[str, Any]], str]] = [
    ("PromptCompletion", pa.schema({"prompt": pa.int64()}), [{"prompt": 1}], "text is expected, found int64"),
    ("PromptCompletion", pa.schema({"prompt": pa.binary()}), [{"prompt": b"x"}], "text is expected, found binary"),
    ("PromptCompletion", pa.schema({"prompt": pa.struct({"a": pa.string()})}), [{"prompt": {"a": "x"}}], "found struct"),
    ("PromptCompletion", pa.schema({"prompt": pa.list_(pa.string())}), [{"prompt": ["x"]}], "found list"),
    ("Messages", pa.schema({"messages": pa.string()}), [{"messages": "[]"}], "a list of {role, content} is expected"),
    ("Messages", pa.schema({"messages": pa.list_(pa.string())}), [{"messages": ["x"]}], "a list of {role, content}"),
    ("Classification", pa.schema({"text": pa.string(), "label": pa.float64()}), [{"text": "x", "label": 1.0}], "double"),
]  # fmt: skip


@pytest.mark.parametrize(("format", "schema", "rows", "words"), BAD_PARQUET, ids=lambda value: str(value)[:40])
def test_columns_of_another_type_are_refused_before_anything_is_read(
    tmp_path: Path, format: str, schema: pa.Schema, rows: list[dict[str, Any]], words: str
) -> None:
    write_parquet(tmp_path / "a.parquet", rows, schema)
    message = refused(tmp_path, format)
    assert message.startswith("a.parquet column ")
    assert words in message


def test_other_columns_of_any_type_are_not_even_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"prompt": "q", "more": {"deep": [1.5]}, "bytes": b"\xff"}])
    assert pairs(read(tmp_path)) == [("q", None)]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.zst"])
def test_what_is_no_such_file_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"data{suffix}").write_bytes(b"PAR1" + b"x" * 100 + b"PAR1")
    assert refused(tmp_path).startswith(f"data{suffix}: not ")


def test_text_in_parquet_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    broken = pa.array([b"ok", b"b\xe9d"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": broken}), tmp_path / "a.parquet")
    assert refused(tmp_path) == "a.parquet row 2: not UTF-8"


@pytest.mark.parametrize("keep", [1, 20, -1])
def test_a_packed_file_that_was_cut_off_is_not_taken_for_a_whole_one(tmp_path: Path, keep: int) -> None:
    whole = packed(lines([{"prompt": f"{n}"} for n in range(1000)]))
    (tmp_path / "a.jsonl.zst").write_bytes(whole[:keep])
    assert refused(tmp_path) == "a.jsonl.zst: the file is cut off"


def test_a_packed_file_may_have_several_frames(tmp_path: Path) -> None:
    frames = [packed(lines([{"prompt": name}])) for name in "abc"]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    assert [prompt for prompt, _ in pairs(read(tmp_path))] == ["a", "b", "c"]


def test_a_packed_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte of one line each in a few kilobytes: only the first of it may be looked at."""
    stream = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(stream, closefd=False) as writer:
        for _ in range(256):
            writer.write(b'{"prompt": "q"}\n' * (1 << 18))
    (tmp_path / "a.jsonl.zst").write_bytes(stream.getvalue())
    monkeypatch.setattr(limits, "RATIO_FREE", 1 << 20)
    seen: list[None] = []
    with pytest.raises(RunFailed) as failed:
        seen.extend(None for _ in read_examples(data(), tmp_path))
    assert failed.value.reason is Reason.UNSAFE_SOURCE
    assert "over 500 times as much" in failed.value.message
    assert len(seen) * 16 < 64 << 20


def test_a_parquet_bomb_is_refused_by_what_its_footer_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": "x" * (1 << 20)}] * 8
    write_parquet(tmp_path / "a.parquet", rows, use_dictionary=False, compression="zstd")
    monkeypatch.setattr(limits, "RATIO_FREE", 1 << 20)
    assert "unpack to" in refused(tmp_path, reason=Reason.UNSAFE_SOURCE)


def test_unpacking_ends_at_an_absolute_limit_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(packed(lines(QA) * 100))
    monkeypatch.setattr(limits, "UNPACKED_LIMIT", 100)
    assert "unpacks to more than" in refused(tmp_path, reason=Reason.UNSAFE_SOURCE)


def test_a_window_that_no_reader_should_keep_is_refused(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    stream = io.BytesIO()
    with compressor.stream_writer(stream, closefd=False) as writer:
        writer.write(lines([{"prompt": "q"}]))
    (tmp_path / "a.jsonl.zst").write_bytes(stream.getvalue())
    assert "not Zstandard" in refused(tmp_path)


def test_a_row_of_lines_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slmkit.data.csv.ROW_LIMIT", 100)
    (tmp_path / "a.csv").write_text("prompt\n" + '"q\nq"\n' * 50 + '"q\n",' * 60)
    assert refused(tmp_path) == "a.csv line 122: a row of more than 100 bytes"


def test_a_value_that_stands_for_many_rows_is_one_value_in_memory(tmp_path: Path) -> None:
    """A megabyte, repeated by reference: a quarter of a gigabyte for each batch if every row held its own."""
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 512, pa.int32()), pa.array(["x" * (1 << 20)]))
    pq.write_table(pa.table({"prompt": repeated}), tmp_path / "a.parquet")
    before = pa.total_allocated_bytes()
    count = most = 0
    for example in read_examples(data(), tmp_path):
        count += len(example.prompt[0]["content"]) == 1 << 20
        most = max(most, pa.total_allocated_bytes() - before)
    assert count == 512
    assert most < 64 << 20


@pytest.mark.parametrize(("suffix", "library"), [(".parquet", "pyarrow"), (".jsonl.zst", "zstandard")])
def test_an_image_without_the_library_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, library: str
) -> None:
    write(tmp_path, suffix, [{"prompt": "q"}])

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name, name=library)

    monkeypatch.setattr("slmkit.data.files.import_module", missing)
    assert f"{suffix.removeprefix('.jsonl')} is not read by this image" in refused(tmp_path)

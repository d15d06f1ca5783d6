"""Model folders: what is no weight and no setting, and settings that would eat a machine."""

import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from slmkit.run import RunFailed
from slmkit.safety import check_model_folder, templates
from slmkit.safety.patterns import trouble
from slmops.contract import Reason

TOKENIZER: dict[str, Any] = {
    "version": "1.0", "truncation": None, "padding": None,
    "added_tokens": [{"id": 0, "content": "<|end|>", "special": True}],
    "normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False}]},
    "post_processor": None, "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]},
}  # fmt: skip
PUBLISHED = [
    # GPT-2, Llama 3, Qwen 2, DeepSeek V3, o200k, Mistral: as they stand in the tokenizers of these models.
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+"
    "[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}",
    "[一-龥\u3040-ヿ]+", r"\p{N}{1,3}", " ", r"(\d{1,3})(?=(?:\d{3})*\b)",
]  # fmt: skip
BOMBS = [r"(a+)+", r"(a*)*b", r"(?:a|aa+)+$", r"((x+)y?)*", r"(\s*\w+)*;", r"([a-z]+)*[A-Z]", r"(?=(a+)+)", r"(?<n>a+)+",
         r"(a|aa)+$", r"(a?b?)*c", r"(?:a|b|ab)*c", r"(a{900}){900}",
         r"(?i:a+)*", r"(a{1,900}){1,900}", r"(a+){2,}", r"([[:alpha:]]+)*", r"([]a]+)*", r"([^]a]+)*", r"a{1,100000}",
         "x" * 5000]  # fmt: skip


def test_the_patterns_of_published_tokenizers_pass() -> None:
    assert [(pattern, why) for pattern in PUBLISHED if (why := trouble(pattern))] == []


@pytest.mark.parametrize("pattern", BOMBS, ids=lambda pattern: pattern[:20])
def test_a_pattern_that_can_take_for_ever_is_refused(pattern: str) -> None:
    assert trouble(pattern) != ""


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(RunFailed) as failed:
        check_model_folder(folder)
    assert failed.value.reason is Reason.UNSAFE_SOURCE
    for word in words:
        assert word in failed.value.message


def tokenizer(folder: Path, **changes: Any) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER | changes))
    return folder


def test_a_plain_tokenizer_passes(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    (tmp_path / "qwen.tiktoken").write_text("IQ== 0\nIg== 1\n")
    check_model_folder(tokenizer(tmp_path))


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def replace(text: str, by: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": text}, "content": by}


TOKENIZER_BOMBS: dict[str, tuple[dict[str, Any], str]] = {
    "a pattern": ({"pre_tokenizer": split(r"(a+)+$")}, "can take for ever"),
    "a pattern deep inside": ({"normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"Regex": r"(\s*\w+)*;"}, "content": ""}]}}, "can take for ever"),
    "a pattern in the decoder": ({"decoder": {"type": "Replace", "pattern": {"Regex": r"(a*)*"}, "content": "x"}},
                                 "can take for ever"),
    "many patterns": ({"pre_tokenizer": {"a": {"b": [split("a")] * 65}}}, "more than 64 patterns"),
    "many steps": ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}] * 65}}, "64 steps"),
    "doubling": ({"normalizer": {"type": "Sequence", "normalizers": [replace("a", "aa")] * 7}}, "as long"),
    "one long replacement": ({"normalizer": replace("a", "b" * 65)}, "as long"),
    "padding": ({"padding": {"strategy": {"Fixed": 1 << 40}, "pad_id": 0}}, "Fixed is beyond"),
    "no model": ({"model": None}, "not a tokenizer"),
    "no vocabulary": ({"model": {"type": "BPE"}}, "not a tokenizer"),
    "a long token": ({"added_tokens": [{"content": "x" * 5000}]}, "longer than 4096"),
}  # fmt: skip


@pytest.mark.parametrize("bomb", TOKENIZER_BOMBS)
def test_a_tokenizer_that_would_eat_a_machine_is_refused(tmp_path: Path, bomb: str) -> None:
    changes, words = TOKENIZER_BOMBS[bomb]
    refused(tokenizer(tmp_path, **changes), "tokenizer.json", words)


@pytest.mark.parametrize("text", ['{"a":' * 100 + "1" + "}" * 100, "[" * 100_000, '{"a": 1, "a": 2}', "{" + "1" * 9999])
def test_json_of_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    refused(tmp_path, "tokenizer.json")


VOCABULARIES = {
    "a pickle": pickle.dumps({"a": 1}), "an old pickle": pickle.dumps({"a": 1}, protocol=0), "nothing": b"",
    "text": b"hello world\n", "a zip": b"PK\x03\x04", "json": b'{"a": 1}',
}  # fmt: skip


@pytest.mark.parametrize("name", ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "x.spm", "x.tiktoken"])
@pytest.mark.parametrize("content", VOCABULARIES)
def test_a_vocabulary_that_is_none_is_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(VOCABULARIES[content])
    refused(tmp_path, name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"num_hidden_layers": 10**9}), ("config.json", {"text_config": {"auto_map": {"AutoModel": "x.Y"}}}),
        ("config.json", {"vocab_size": 1e300}), ("config.json", {"hidden_size": -(10**9)}),
        ("config.json", {"_attn_implementation": "somebody/kernels"}), ("config.json", {"trust_remote_code": True}),
        ("adapter_config.json", {"auto_mapping": {"parent_library": "os", "base_model_class": "x"}}),
        ("adapter_config.json", {"r": 10**9}), ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["x.Y", None]}}),
    ],
)  # fmt: skip
def test_a_configuration_beyond_a_plain_model_is_refused(tmp_path: Path, name: str, content: dict[str, Any]) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    refused(tmp_path, name)


def test_an_adapter_as_peft_writes_it_passes(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"auto_mapping": None, "r": 16, "peft_type": "LORA"}))
    check_model_folder(tmp_path)


def packed(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("bomb", bytes(1 << 20))
    elif kind == "tar":
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("../../etc/passwd"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name", ["a.zip", "a.tar", "a.gz", "a.tgz", "a.zst", "a.7z", "a.whl", "a.h5", "a.msgpack", "a.pb"]
)
def test_archives_are_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path, name)


DISGUISED = {
    "zip": packed("zip"), "tar": packed("tar"), "gzip": gzip.compress(bytes(1 << 20)), "zstd": b"\x28\xb5\x2f\xfdxx",
    "pickle": pickle.dumps([print], protocol=4), "program": b"\x7fELF\x02\x01\x01", "numpy": b"\x93NUMPY\x01\x00",
    "hdf5": b"\x89HDF\r\n\x1a\n",
}  # fmt: skip


@pytest.mark.parametrize("content", DISGUISED)
@pytest.mark.parametrize("name", ["vocab.txt", "README.md", "config.yaml", "weights"])
def test_what_a_file_is_counts_and_not_its_name(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(DISGUISED[content])
    refused(tmp_path, name, "whatever it is called")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "/proc/self/environ", "/"])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").symlink_to(target)
    refused(folder, "config.json", "link that leaves the folder")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    refused(tmp_path, "config.json")


def test_a_labyrinth_is_refused(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*"abcdefgh")
    folder.mkdir(parents=True)
    (folder / "x.txt").write_text("x")
    refused(tmp_path, "folders deep")


# --- chat templates

PLAIN = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}{% generation %}x{% endgeneration %}"
PICKY = "{% if messages|length > 1 %}{{ raise_exception('one message only') }}{% endif %}"
TEMPLATE_BOMBS = {
    "a loop of loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a long text": "{{ 'x' * 10000000 }}",
    "a huge text": "{{ ('x' * 1000000000) * 10 }}",
    "doubling": "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "a power": "{{ 10 ** (10 ** 10) }}",
    "another file": "{% include '/etc/passwd' %}",
    "another template": "{% extends 'base' %}",
    "a module": "{% import 'os' as os %}",
    "no template": "{% for %}",
    "depth": "{% if a %}" * 5000,
}


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
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE_BOMBS[bomb]}))
    refused(tmp_path, "tokenizer_config.json", "chat template")


@pytest.mark.parametrize("file", ["tokenizer_config.json", "chat_template.json", "processor_config.json"])
def test_every_place_of_a_chat_template_is_looked_at(tmp_path: Path, file: str) -> None:
    several = [{"name": "default", "template": PLAIN}, {"name": "tools", "template": "{% include 'x' %}"}]
    (tmp_path / file).write_text(json.dumps({"chat_template": several}))
    refused(tmp_path, file, "reads another file")


def test_a_chat_template_beyond_all_measure_is_not_tried(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("x" * (templates.LIMIT + 1))
    refused(tmp_path, "more than")

"""Tokenizers of strangers: patterns that never end, texts that grow, settings that are more than that."""

import base64
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from slmkit.safety import check_model_folder
from slmkit.safety.patterns import trouble
from slmops.contract import Reason
from tests.unit.images.modelfolder import refused
from tests.unit.images.piecebuilder import charsmap

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
         "x" * 5000,
         r"[\s\S]*[\s\S]*[\s\S]*", r"a+b*c+", r"a{2,}(b+|c)(?=d*)", r"(?:x|y*z)(\s+)\w+!", "a?" * 13 + "a" * 13,
         r"(a|b|ab)" * 8, r"a{1,70}b{0,70}", r"a{1,2}+$", r"(?<x>a+){0}(\g<x>)+$", r"(a+)(\1)+", r"(?<n>a)\k<n>",
         r"(?~a)+b", r"(?(1)a|b)", r"(*FAIL)", "(a+b+(c+"]  # fmt: skip


def test_the_patterns_of_published_tokenizers_pass() -> None:
    assert [(pattern, why) for pattern in PUBLISHED if (why := trouble(pattern))] == []


@pytest.mark.parametrize("pattern", BOMBS, ids=lambda pattern: pattern[:20])
def test_a_pattern_that_can_take_for_ever_is_refused(pattern: str) -> None:
    assert trouble(pattern) != ""


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


def template(pieces: int, ids: int) -> dict[str, Any]:
    special = {"s": {"id": "s", "ids": [0] * ids, "tokens": ["s"] * ids}}
    single = [{"Sequence": {"id": "A", "type_id": 0}}, *[{"SpecialToken": {"id": "s", "type_id": 0}}] * pieces]
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": special}


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
    "a long beginning": ({"normalizer": {"type": "Prepend", "prepend": "x" * 8_000_000}}, "more than 256 characters"),
    "many beginnings": ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "x"}] * 7}},
                        "as long"),
    "between all letters": ({"normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"Regex": "b*"}, "content": "a"}] * 7}}, "as long"),
    "for nothing": ({"normalizer": {"type": "Sequence", "normalizers": [replace("", "a")] * 7}}, "as long"),
    "a long end of words": ({"model": TOKENIZER["model"] | {"end_of_word_suffix": "x" * 257}}, "more than 256 characters"),
    "a table that makes much of a letter": ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(
        charsmap(texts=b"x" * 129 + b"\0")).decode()}}, "more than 128 bytes"),
    "a table that is none": ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "?"}}, "is no table"),
    "many tokens around": ({"post_processor": template(62, 100_000)}, "around a text"),
    "many templates": ({"post_processor": {"type": "Sequence", "processors": [template(9, 8)] * 4}}, "around a text"),
    "a word without end": ({"model": TOKENIZER["model"] | {"max_input_chars_per_word": 1 << 30}}, "is beyond 1000"),
    "a long word": ({"model": {"type": "Unigram", "vocab": [["x" * 4097, -1.0]]}}, "a token of more than 4096"),
    "many long words": ({"model": {"type": "BPE", "vocab": {"x" * 4000 + str(n): n for n in range(17)}, "merges": []}},
                        "too long to be taken apart"),
    "padding": ({"padding": {"strategy": {"Fixed": 1 << 40}, "pad_id": 0}}, "Fixed is beyond"),
    "no model": ({"model": None}, "not a tokenizer"),
    "no vocabulary": ({"model": {"type": "BPE"}}, "not a tokenizer"),
    "a long token": ({"added_tokens": [{"content": "x" * 5000}]}, "longer than 4096"),
}  # fmt: skip


@pytest.mark.parametrize("bomb", TOKENIZER_BOMBS)
def test_a_tokenizer_that_would_eat_a_machine_is_refused(tmp_path: Path, bomb: str) -> None:
    changes, words = TOKENIZER_BOMBS[bomb]
    assert refused(tokenizer(tmp_path, **changes), "tokenizer.json", words) is Reason.UNSAFE_SOURCE


@pytest.mark.parametrize("name", ["tokenizer.4.0.0.json", "tokenizer.5.json", "deep/tokenizer.json"])
def test_a_tokenizer_of_another_version_is_looked_at_too(tmp_path: Path, name: str) -> None:
    path = tokenizer(tmp_path) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(TOKENIZER | {"pre_tokenizer": split(r"(a+)+$")}))
    refused(tmp_path, path.name, "can take for ever")


TABLE = base64.b64encode(charsmap(texts=b"B\0ABC\0")).decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": TABLE}, {"type": "Precompiled", "precompiled_charsmap": None},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}]}},
        {"post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"}, template(2, 1)]}},
        {"model": {"type": "WordPiece", "vocab": {"a": 0}, "max_input_chars_per_word": 100, "unk_token": "[UNK]"}},
        {"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["▁a", -2.5]], "unk_id": 0}},
    ],
)  # fmt: skip
def test_tokenizers_as_they_are_published_pass(tmp_path: Path, changes: dict[str, Any]) -> None:
    check_model_folder(tokenizer(tmp_path, **changes))


def tekken(**config: Any) -> dict[str, Any]:
    return {
        "config": {"pattern": PUBLISHED[4], "default_vocab_size": 131072} | config,
        "vocab": [{"token_bytes": "YQ=="}],
    }


def test_a_tokenizer_of_mistrals_passes(tmp_path: Path) -> None:
    (tmp_path / "tekken.json").write_text(json.dumps(tekken()))
    check_model_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tekken(pattern=r"(a+)+$"), "can take for ever"), (tekken(pattern=None), "is no text"),
        ({"vocab": []}, "not a tokenizer"),
        (tekken(default_num_special_tokens=1 << 40), "is beyond"), (tekken() | {"vocab": {}}, "not a tokenizer"),
        (tekken() | {"vocab": [{"token_bytes": "x" * 5000}]}, "more than 4096"),
    ],
)  # fmt: skip
def test_a_tokenizer_of_mistrals_that_would_eat_a_machine_is_refused(
    tmp_path: Path, content: dict[str, Any], words: str
) -> None:
    (tmp_path / "tekken.json").write_text(json.dumps(content))
    refused(tmp_path, "tekken.json", words)


# --- settings of a tokenizer, which transformers takes for more than that


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", {"fast_tokenizer_files": ["../data-train/tokenizer.4.0.0.json"]}),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}),
        ("tokenizer_config.json", {"merges_file": "/data/merges.txt"}), ("tokenizer_config.json", {"gguf_file": "x.gguf"}),
        ("tokenizer_config.json", {"vocab": "/data/vocab.json"}), ("tokenizer_config.json", {"init_inputs": ["/data/x"]}),
        ("tokenizer_config.json", {"_json_padding": {"length": 1 << 40}}),
        ("tokenizer_config.json", {"bos_token": "x" * 257}),
        ("tokenizer_config.json", {"eos_token": {"content": "x" * 257}}),
        ("tokenizer_config.json", {"extra_special_tokens": {"chat_template": "{% include 'x' %}"}}),
        ("tokenizer_config.json", {"extra_special_tokens": ["x" * 257]}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"4000000000": {"content": "a"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": {"content": "x" * 257}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"-1": {"content": "x"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": []}),
        ("special_tokens_map.json", {"tokenizer_file": "/data/tokenizer.json"}),
        ("special_tokens_map.json", {"chat_template": "{{ 1 }}"}), ("special_tokens_map.json", {"unk_token": "x" * 257}),
        ("added_tokens.json", {"a": 1 << 40}), ("added_tokens.json", {"a": "b"}), ("added_tokens.json", {"x" * 257: 1}),
    ],
)  # fmt: skip
def test_settings_of_a_tokenizer_name_no_file_and_hold_no_tokenizer(
    tmp_path: Path, name: str, content: dict[str, Any]
) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    assert refused(tokenizer(tmp_path), name) is Reason.UNSAFE_SOURCE


def test_settings_as_they_are_published_pass(tmp_path: Path) -> None:
    config = {
        "tokenizer_file": None, "fast_tokenizer_files": None, "special_tokens_map_file": "/root/.cache/x.json",
        "vocab_file": "/home/ann/x.model", "merges_file": None, "init_inputs": [], "_commit_hash": "1234567",
        "bos_token": {"__type": "AddedToken", "content": "<s>"}, "additional_special_tokens": ["<|im_start|>"],
        "extra_special_tokens": {"image_token": "<image>"}, "name_or_path": "org/model", "add_bos_token": True,
        "added_tokens_decoder": {"151643": {"content": "<|endoftext|>", "special": True}}, "sp_model_kwargs": {},
    }  # fmt: skip
    special = {"bos_token": "<s>", "pad_token": {"content": "<pad>", "lstrip": False}, "boi_token": "<i>",
               "additional_special_tokens": ["<a>", {"content": "<b>"}]}  # fmt: skip
    for name, content in {
        "tokenizer_config": config, "special_tokens_map": special, "added_tokens": {"<a>": 32000},
    }.items():  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    check_model_folder(tokenizer(tmp_path))


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

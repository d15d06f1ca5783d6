"""Vocabularies of SentencePiece's, and the tables in them: whatever libraries would read beyond, or never end with."""

import base64
import json
from pathlib import Path

import pytest

from slmkit.safety import check_model_folder
from slmkit.safety import tokenizers as module
from slmkit.safety.charsmap import LIMIT, trouble
from slmops.contract import Reason
from tests.unit.images.modelfolder import refused
from tests.unit.images.piecebuilder import ENDS, LEAF, charsmap, field, number, vocabulary

ASTRAY, NO_TEXT, NO_TREE = "leads out of itself", "leads to no text", "a tree that is none"
TABLES: dict[str, tuple[bytes, str]] = {
    "beyond its end at once": (charsmap({0: 256 << 10}), ASTRAY),
    "far beyond its end": (charsmap({0: 1 << 10 | 1 << 9}), ASTRAY),
    "beyond its end by a letter": (charsmap({0x40: 300 << 10 | ord("A")}), ASTRAY),
    "beyond its end by a second letter": (
        charsmap({0x40: 0x42 << 10 | ord("A"), 2 ^ ord("z"): 1 << 20 | ord("z")}), ASTRAY),
    "a text beyond the last": (charsmap({2: ENDS | 2}), NO_TEXT),
    "a text inside of a letter": (charsmap({2: ENDS | 1}, "ä\0".encode()), NO_TEXT),
    "no tree": (charsmap(size=0), NO_TREE),
    "half a block": (charsmap(size=512), NO_TREE),
    "a longer tree than there are bytes": (charsmap(size=1 << 31), NO_TREE),
    "a cut tree": (charsmap()[:200], NO_TREE),
    "half a number": (b"\0\0", NO_TREE),
    "no UTF-8": (charsmap(texts=b"\xff\0"), "makes what is no text"),
    "a text that does not end": (charsmap(texts=b"B"), "without an end"),
    "no text at all": (charsmap(texts=b""), "without an end"),
    "a long text": (charsmap(texts=b"B" * 129 + b"\0"), "more than 128 bytes of a letter"),
    "a long table": (charsmap(blocks=LIMIT // 1024 + 1), "is longer than"),
}  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("kind", ["tokenizer.json", "tokenizer.model", "the way back"])
def test_a_table_that_leads_astray_is_refused_wherever_it_stands(tmp_path: Path, table: str, kind: str) -> None:
    raw, words = TABLES[table]
    if kind == "tokenizer.json":
        normalizer = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(raw).decode()}
        content = {"normalizer": normalizer, "model": {"type": "Unigram", "vocab": [["a", -1.0]]}}
        (tmp_path / kind).write_text(json.dumps(content))
        assert refused(tmp_path, kind, words) is Reason.UNSAFE_SOURCE
    else:
        content = vocabulary("a", table=raw) if kind == "tokenizer.model" else vocabulary("a", back=raw)
        (tmp_path / "spiece.model").write_bytes(content)
        assert refused(tmp_path, "spiece.model", words) is Reason.UNSAFE_SOURCE


def test_tables_as_they_are_made_pass() -> None:
    assert trouble(charsmap()) == trouble(charsmap(blocks=3)) == trouble(b"") == ""
    unreached = {0x50: 1 << 28 | ord("x"), 0x60: ENDS | 12345, 0x61: 1 << 28 | LEAF}
    assert trouble(charsmap(unreached)) == "", "no text leads there"
    back = {2 ^ ord("z"): (2 ^ ord("z") ^ 1) << 10 | ord("z"), 0x40: 0x42 << 10 | ord("A")}
    assert trouble(charsmap(back)) == "", "back to where one came from, for another letter of the text"


@pytest.mark.parametrize("name", ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "x.spm"])
def test_a_vocabulary_as_it_is_published_passes(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(vocabulary("<unk>", "▁a", "x" * 300, table=charsmap(), back=charsmap()))
    check_model_folder(tmp_path)


GARBLED: dict[str, tuple[bytes, str]] = {
    "a long piece": (vocabulary("a", "x" * 4097), "a token of more than 4096"),
    "many long pieces": (vocabulary(*[f"{n:04}" + "x" * 4000 for n in range(17)]), "too long to be taken apart"),
    "cut off": (vocabulary("a", "b" * 40)[:-1], "longer than what holds it"),
    "a piece longer than the file": (b"\x0a" + number(1 << 40), "longer than what holds it"),
    "a text longer than its piece": (field(1, b"\x0a\x7fa"), "longer than what holds it"),
    "a number without end": (b"\x0a\x02\x18\x01" + b"\xff" * 11, "a number without an end"),
    "a group": (vocabulary("a", more=b"\x0b\x0c"), "of a kind that is not known"),
    "half a score": (b"\x0a\x05\x0a\x01a\x15\x00", "ends in the middle"),
}  # fmt: skip


@pytest.mark.parametrize("how", GARBLED)
def test_a_vocabulary_that_is_forged_is_refused(tmp_path: Path, how: str) -> None:
    content, words = GARBLED[how]
    (tmp_path / "tokenizer.model").write_bytes(content)
    assert refused(tmp_path, "tokenizer.model", words) is Reason.UNSAFE_SOURCE


def test_pieces_without_end_are_refused_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENS", 3)
    path = tmp_path / "tokenizer.model"
    path.write_bytes(vocabulary("a", "b", "c"))
    check_model_folder(tmp_path)
    path.write_bytes(vocabulary("a", "b", "c", "d"))
    assert refused(tmp_path, "tokenizer.model", "more than 3 tokens") is Reason.UNSAFE_SOURCE


def test_numbers_of_a_normalizer_are_passed_over(tmp_path: Path) -> None:
    """Also where it stands in several parts, of which the last word counts: each is looked at."""
    bad, _ = TABLES["beyond its end at once"]
    (tmp_path / "tokenizer.model").write_bytes(vocabulary("a", more=field(3, b"\x18\x00" + field(2, charsmap()))))
    check_model_folder(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(vocabulary("a", table=charsmap(), more=field(3, field(2, bad))))
    refused(tmp_path, "tokenizer.model", ASTRAY)

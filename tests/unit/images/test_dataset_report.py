"""The report on a data set: the counts as they are, a page that needs and runs nothing, the same bytes each time."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from slm_trainer.dataset.report import Subject, write_report
from slm_trainer.dataset.tally import Tally
from slmkit.data import Example
from slmops.contract import Balance, Filters

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}'


def ask(text: str, answer: str | None = "yes", category: str | None = None) -> Example:
    return Example(({"role": "user", "content": text},), answer, category)


def tally() -> Tally:
    made = Tally(read=12)
    for number in range(9):
        made.keep(ask("word " * number + "end", "yes" if number % 3 else EVIL[:60], "ab"[number % 2]))
    made.drop("Duplicate", ask(EVIL, EVIL))
    made.drop("RateLimited", ask("q", None))
    made.drop("RateLimited", ask("r", None))
    return made


SUBJECT = Subject("farm-train-1234", {"train": "oci://r.example/data@sha256:12"}, {"training": 7, "evaluation": 2},
                  Filters(labels=("yes", EVIL), balance=Balance(maximum=5)))  # fmt: skip


class Page(HTMLParser):
    """The elements and attributes of a page, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return Page(write_report(tally(), SUBJECT, tmp_path)["report.html"].read_text())


def test_the_numbers_are_those_that_were_counted(tmp_path: Path) -> None:
    found = json.loads(write_report(tally(), SUBJECT, tmp_path)["report.json"].read_text())
    assert (found["read"], found["kept"]) == (12, 9)
    assert found["dropped"] == {"RateLimited": 2, "Duplicate": 1}
    assert list(found["dropped"]) == ["RateLimited", "Duplicate"], "the most frequent first"
    assert [(b["from"], b["to"], b["records"]) for b in found["lengths"]] == [(3, 4, 2), (5, 8, 4), (9, 16, 3)]
    assert found["answers"] == {"yes": 6, EVIL[:60]: 3}
    assert found["categories"] == {"a": 5, "b": 4}
    assert found["filters"] == {
        "deduplicate": True,
        "labels": ["yes", EVIL],
        "balance": {"per": "Answer", "maximum": 5},
    }
    assert found["parts"] == {"training": 7, "evaluation": 2}
    assert found["examples"]["Duplicate"] == [{"prompt": EVIL, "answer": EVIL}]


def test_a_page_shows_what_was_dropped_and_why(page: Page) -> None:
    for words in (
        "RateLimited",
        "Duplicate",
        "The prompt was there before.",
        "12",
        "75.0%",
        "farm-train-1234",
        "9 to 16",
    ):
        assert words in page.words
    assert {"svg", "table", "details"} <= page.tags


def test_nothing_of_a_record_runs_or_is_fetched(page: Page) -> None:
    assert not page.tags & {"script", "img", "iframe", "link", "object", "base", "form"}
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "xlink:href")]
    assert EVIL in page.words, "it is shown as it is"
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_the_page_names_no_other_place(tmp_path: Path) -> None:
    text = write_report(tally(), SUBJECT, tmp_path)["report.html"].read_text()
    styles = "".join(re.findall(r"<style.*?</style>", text, re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles


def test_the_same_data_give_the_same_report(tmp_path: Path) -> None:
    first, second = (write_report(tally(), SUBJECT, tmp_path / name) for name in "ab")
    for name in ("report.json", "report.html"):
        assert first[name].read_bytes() == second[name].read_bytes()


def labelled(labels: int, each: int, length: int = 128) -> Tally:
    """As many labels, of as many letters."""
    made = Tally()
    for number in range(labels * each):
        made.keep(ask("q", f"{number % labels:0{length}}", f"{number % labels:0{length}}"))
    return made


@pytest.mark.parametrize(
    ("labels", "each", "length", "declared", "shown"),
    [
        (256, 2, 128, False, True),  # the most that the API takes
        (256, 1, 128, True, True),
        (1000, 2, 128, False, True),  # the most that a task of labels takes
        (1001, 2, 128, False, False),
        (256, 1, 128, False, False),  # each answer another one: words, not labels
        (64, 1, 128, False, True),
        (2, 2, 129, False, False),
    ],
)
def test_every_set_of_labels_is_shown_and_no_set_of_answers(
    labels: int, each: int, length: int, declared: bool, shown: bool, tmp_path: Path
) -> None:
    filters = Filters(labels=("a", "b")) if declared else Filters()
    files = write_report(labelled(labels, each, length), Subject("x", {}, {}, filters), tmp_path)
    found = json.loads(files["report.json"].read_text())
    assert (len(found["answers"]) if found["answers"] else None) == (labels if shown else None)
    assert (found["categories"] is not None) == (shown and not declared)


@pytest.mark.parametrize(("labels", "words"), [(64, "by their answer."), (65, "the 64 most frequent of 65")])
def test_a_picture_has_room_for_the_most_frequent(labels: int, words: str, tmp_path: Path) -> None:
    text = write_report(labelled(labels, 2, 5), Subject("x", {}, {}, None), tmp_path)["report.html"].read_text()
    assert text.startswith("<!doctype html>")
    assert words in text
    assert "00063 · 2" in text
    assert "00064 · 2" not in text


def test_an_empty_data_set_has_a_page_too(tmp_path: Path) -> None:
    text = write_report(Tally(), Subject("x", {}, {}, None), tmp_path)["report.html"].read_text()
    assert "Nothing." in text
    assert "<svg" not in text

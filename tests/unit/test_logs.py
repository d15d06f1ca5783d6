"""The log: one JSON object a line, whatever stands in it, with the resource and the pass that it belongs to."""

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from slmops import logs
from slmops.logs import LIMIT, JsonFormatter, reconcile_context

Said = Callable[[], str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[Said]:
    """Reads standard error; what `configure` did is undone afterwards."""
    names = ("", "kopf", "kopf._cogs.clients", "aiohttp", "asyncio")
    levels = {name: logging.getLogger(name).level for name in names}
    yield lambda: capsys.readouterr().err
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler.formatter, JsonFormatter)]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line]


def test_a_line_says_when_how_bad_who_and_what(said: Said) -> None:
    logs.configure("info")
    logging.getLogger("slmops.x").warning("%d of %s", 3, "four")
    (line,) = lines(said())
    assert (line["level"], line["logger"], line["message"]) == ("warning", "slmops.x", "3 of four")
    assert line["time"].endswith("+00:00")
    assert set(line) == {"time", "level", "logger", "message"}


def test_lines_of_a_pass_name_the_resource_and_the_pass(said: Said) -> None:
    logs.configure("info")
    log = logging.getLogger("slmops.deep.inside")

    async def work(name: str) -> None:
        with reconcile_context("FineTune", "farm", name):
            await asyncio.sleep(0)
            log.info("one")
            await asyncio.sleep(0)
            log.info("two")

    async def main() -> None:
        await asyncio.gather(work("a"), work("b"))
        log.info("outside")

    asyncio.run(main())
    found = lines(said())
    outside = found.pop()
    assert outside["message"] == "outside"
    assert "reconcile" not in outside
    by_pass = {(line["kind"], line["namespace"], line["name"], line["reconcile"]) for line in found}
    assert [key[:3] for key in sorted(by_pass)] == [("FineTune", "farm", "a"), ("FineTune", "farm", "b")]
    assert len({key[3] for key in by_pass}) == 2, "each pass has a number of its own"
    assert len(found) == 4


def test_a_pass_that_fails_leaves_its_context(said: Said) -> None:
    with pytest.raises(ValueError, match="x"), reconcile_context("FineTune", "farm", "a"):
        raise ValueError("x")
    logs.configure("info")
    logging.getLogger("slmops").info("after")
    assert "name" not in lines(said())[0]


HOSTILE = {
    "lines": 'one\ntwo\r\nthree\n{"level": "error", "message": "forged"}',
    "separators": "one\u2028two\u2029three\u0085four\x0bfive\x0csix",
    "terminal": "\x1b[2J\x1b]0;title\x07",
    "right to left": "\u202egnp.exe",
    "half a character": "\ud800",
    "quotes": '"}{"',
    "nothing": "\x00",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_somebody_elses_text_stays_in_its_line(what: str, said: Said) -> None:
    logs.configure("info")
    logging.getLogger("slmops").warning("refused: %s", HOSTILE[what])
    (text, rest) = said().split("\n")
    assert rest == ""
    assert len(text.splitlines()) == 1
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["message"] == f"refused: {HOSTILE[what]}"


def test_a_trace_is_part_of_its_line(said: Said) -> None:
    logs.configure("info")
    try:
        raise RuntimeError("boom\nbang")
    except RuntimeError:
        logging.getLogger("slmops").exception("failed")
    (line,) = lines(said())
    assert line["trace"].startswith("Traceback (most recent call last):\n")
    assert line["trace"].endswith("RuntimeError: boom\nbang")


def test_a_line_has_a_bound() -> None:
    try:
        raise RuntimeError("x" * 10**6)
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "y" * 10**6, (), sys.exc_info())
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "y" * LIMIT
    assert len(line["trace"]) == LIMIT


@pytest.mark.parametrize(
    ("level", "logger", "at", "expected"),
    [
        ("info", "slmops", logging.INFO, True),
        ("info", "slmops", logging.DEBUG, False),
        ("debug", "slmops", logging.DEBUG, True),
        ("error", "slmops", logging.WARNING, False),
        ("info", "kopf.anything", logging.INFO, False),
        ("info", "kopf.anything", logging.WARNING, True),
        ("info", "kopf._cogs.clients.api", logging.ERROR, False),
        ("debug", "kopf._cogs.clients.api", logging.ERROR, True),
        ("debug", "asyncio", logging.DEBUG, False),
        ("debug", "aiohttp.access", logging.INFO, False),
    ],
)
def test_levels(level: str, logger: str, at: int, expected: bool, said: Said) -> None:
    logs.configure(level)
    logging.getLogger(logger).log(at, "text")
    assert bool(said()) is expected

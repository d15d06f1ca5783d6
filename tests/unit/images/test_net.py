"""Who a run may connect to: by its list, by what an address is, and by who named it."""

import asyncio
import ipaddress
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from slm_trainer.label.client import Door
from slmkit import net, peers
from slmkit.net import FOR, AsyncTransport, Gate
from slmkit.run import Context, RunFailed, execute
from slmops.api.egress import NODE
from slmops.contract import Endpoint, Peer, Reason, Report, TrainRun
from tests.unit.images.fakeregistry import Answer, FakeRegistry

NAMES = {"public.example": ["93.184.215.14"], "corp.example": ["10.1.2.3"], "six.example": ["fd00::5"],
         "mixed.example": ["93.184.215.14", "10.1.2.3"], "node.example": ["169.254.169.254"],
         "translated.example": ["64:ff9b::a01:203"], "old.example": ["2002:a01:203::1"]}  # fmt: skip


@pytest.fixture(autouse=True)
def no_list() -> Iterator[None]:
    yield
    peers.limit(None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that were looked up."""
    seen: list[str] = []

    def resolve(host: str, port: int) -> Sequence[tuple[object, ...]]:
        seen.append(host)
        return [(0, 0, 0, "", (address, port)) for address in NAMES.get(host, [host.strip("[]")])]

    monkeypatch.setattr(net, "_resolve", resolve)
    return seen


def reason(gate: Gate, url: str, asked_for: str = "") -> Reason | None:
    try:
        assert gate.addresses(httpx.URL(url), asked_for)
    except RunFailed as failed:
        return failed.reason
    return None


def limit(*listed: str, named: Sequence[str] = ()) -> None:
    def peer(text: str, in_words: bool) -> Peer:
        host, _, port = text.rpartition(":")
        return Peer(host=host, port=int(port), listed=in_words)

    peers.limit([*(peer(text, True) for text in listed), *(peer(text, False) for text in named)])


@pytest.mark.parametrize(
    ("url", "public", "internal"),
    [
        ("https://public.example", None, None),
        ("https://corp.example", Reason.UNSAFE_SOURCE, None),
        ("https://six.example", Reason.UNSAFE_SOURCE, None),
        ("https://mixed.example", Reason.UNSAFE_SOURCE, None),
        ("https://translated.example", Reason.UNSAFE_SOURCE, None),
        ("https://old.example", Reason.UNSAFE_SOURCE, None),
        ("https://node.example", Reason.UNSAFE_SOURCE, Reason.UNSAFE_SOURCE),
        ("https://127.0.0.1", Reason.UNSAFE_SOURCE, Reason.UNSAFE_SOURCE),
        ("https://[::1]", Reason.UNSAFE_SOURCE, Reason.UNSAFE_SOURCE),
        ("https://[fe80::1]", Reason.UNSAFE_SOURCE, Reason.UNSAFE_SOURCE),
        ("https://[fd00:ec2::254]", Reason.UNSAFE_SOURCE, Reason.UNSAFE_SOURCE),
        ("https://[fd20:ce::254]", Reason.UNSAFE_SOURCE, Reason.UNSAFE_SOURCE),
        ("https://100.100.100.200", Reason.UNSAFE_SOURCE, Reason.UNSAFE_SOURCE),
        ("https://168.63.129.16", Reason.UNSAFE_SOURCE, Reason.UNSAFE_SOURCE),
        ("https://192.0.0.192", Reason.UNSAFE_SOURCE, Reason.UNSAFE_SOURCE),
        ("https://[64:ff9b::6464:64c8]", Reason.UNSAFE_SOURCE, Reason.UNSAFE_SOURCE),
        ("https://[::ffff:169.254.169.254]", Reason.UNSAFE_SOURCE, Reason.UNSAFE_SOURCE),
        ("https://0.0.0.0", Reason.UNSAFE_SOURCE, Reason.UNSAFE_SOURCE),
        ("https://224.0.0.1", Reason.UNSAFE_SOURCE, Reason.UNSAFE_SOURCE),
        ("https://255.255.255.255", Reason.UNSAFE_SOURCE, Reason.UNSAFE_SOURCE),
    ],
)
def test_what_an_address_is_decides(asked: list[str], url: str, public: Reason | None, internal: Reason | None) -> None:
    assert reason(Gate(), url) is public
    assert reason(Gate(internal=True), url) is internal


def test_what_no_policy_lets_out_to_no_run_asks(asked: list[str]) -> None:
    for text in NODE:
        address = ipaddress.ip_network(text)[0]
        host = f"[{address}]" if address.version == 6 else str(address)
        limit(f"{address}:443")
        assert reason(Gate(internal=True), f"https://{host}") is Reason.UNSAFE_SOURCE, text


def test_a_teacher_may_run_in_the_pod_itself(asked: list[str]) -> None:
    gate = Gate(internal=True, own=True)
    peers.limit([])
    assert reason(gate, "http://127.0.0.1:8000") is None
    assert reason(gate, "http://[::1]:8000") is None
    assert reason(gate, "http://169.254.169.254") is Reason.EGRESS_REFUSED
    assert reason(gate, "http://0.0.0.0") is Reason.EGRESS_REFUSED


def test_a_public_host_sends_nobody_inwards(asked: list[str]) -> None:
    gate = Gate(internal=True)
    assert reason(gate, "https://corp.example", asked_for="public.example") is Reason.UNSAFE_SOURCE
    assert reason(gate, "https://corp.example") is None
    assert reason(gate, "https://corp.example", asked_for="public.example") is Reason.UNSAFE_SOURCE, (
        "and not later either"
    )
    assert reason(Gate(internal=True), "https://six.example", asked_for="corp.example") is None
    assert reason(Gate(internal=True), "https://node.example", asked_for="corp.example") is Reason.UNSAFE_SOURCE


def test_with_a_list_nobody_else_is_asked_and_no_other_name_looked_up(asked: list[str]) -> None:
    limit(named=("public.example:443",))
    assert reason(Gate(), "https://public.example") is None
    assert asked == ["public.example"]
    assert reason(Gate(), "https://other.example") is Reason.EGRESS_REFUSED
    assert reason(Gate(), "https://public.example:8443") is Reason.EGRESS_REFUSED
    assert reason(Gate(internal=True), "https://corp.example") is Reason.EGRESS_REFUSED
    assert asked == ["public.example"], "a name that is looked up can carry what shall not leave"


def test_an_empty_list_lets_nobody_in(asked: list[str]) -> None:
    peers.limit([])
    assert reason(Gate(), "https://public.example") is Reason.EGRESS_REFUSED


def test_names_are_listed_whole_or_by_their_end(asked: list[str]) -> None:
    limit("*.example:443")
    assert reason(Gate(), "https://PUBLIC.example") is None
    limit("*.ample:443", "example:443", "public.example.org:443")
    assert reason(Gate(), "https://public.example") is Reason.EGRESS_REFUSED


def test_only_what_is_listed_in_words_may_be_inside(asked: list[str]) -> None:
    limit(named=("corp.example:443",))
    assert reason(Gate(), "https://corp.example") is Reason.UNSAFE_SOURCE
    limit("corp.example:443")
    assert reason(Gate(), "https://corp.example") is None
    limit("node.example:443")
    assert reason(Gate(), "https://node.example") is Reason.UNSAFE_SOURCE, "the node's own link is never asked"


def test_ranges_let_in_every_name_that_lies_in_them(asked: list[str]) -> None:
    limit("10.1.0.0/16:443", "93.184.215.14/32:443")
    assert reason(Gate(), "https://corp.example") is None
    assert reason(Gate(), "https://public.example") is None
    assert reason(Gate(), "https://10.2.0.1") is Reason.EGRESS_REFUSED
    assert reason(Gate(), "https://10.1.2.3:6443") is Reason.EGRESS_REFUSED
    assert reason(Gate(), "https://six.example") is Reason.EGRESS_REFUSED


async def test_a_teacher_is_asked_through_the_same_gate(registry: FakeRegistry) -> None:
    registry.always("GET /v1/models", Answer(body=b"{}"))
    for gate, works in ((Gate(internal=True, trusted=(registry.host,)), True), (Gate(internal=True), False)):
        async with httpx.AsyncClient(transport=AsyncTransport(gate, httpx.Limits())) as client:
            if works:
                assert (await client.get(f"http://{registry.host}/v1/models")).json() == {}
            else:
                with pytest.raises(RunFailed, match="is an internal address"):
                    await client.get(f"http://{registry.host}/v1/models")
    assert registry.requests == ["GET /v1/models"]


@pytest.mark.parametrize("coding", ["zstd", "gzip", "identity, gzip", "br"])
async def test_a_teachers_answer_that_is_packed_is_not_unpacked(registry: FakeRegistry, coding: str) -> None:
    """2 KB of zstd are 64 MiB before anybody counts them."""
    registry.always("GET /", Answer(body=b"{}", headers={"Content-Encoding": coding}))
    gate = Gate(trusted=(registry.host,))
    async with httpx.AsyncClient(transport=AsyncTransport(gate, httpx.Limits())) as client:
        with pytest.raises(RunFailed, match="answers packed though asked not to") as failed:
            await client.get(f"http://{registry.host}/v1/models")
    assert failed.value.reason is Reason.UNSAFE_SOURCE


@pytest.mark.parametrize("coding", ["", "identity"])
async def test_a_teacher_is_asked_for_answers_that_are_not_packed(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch, coding: str
) -> None:
    wanted: list[str] = []
    send = httpx.AsyncHTTPTransport.handle_async_request

    async def seen(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        wanted.append(request.headers["Accept-Encoding"])
        return await send(self, request)

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", seen)
    registry.always("GET /", Answer(body=b"{}", headers={"Content-Encoding": coding} if coding else {}))
    gate = Gate(trusted=(registry.host,))
    async with httpx.AsyncClient(transport=AsyncTransport(gate, httpx.Limits())) as client:
        assert (await client.get(f"http://{registry.host}/v1/models")).json() == {}
    assert wanted == ["identity"]


async def test_a_teachers_door_has_the_gate(asked: list[str]) -> None:
    for url, allowed, reason in (
        ("http://169.254.169.254/v1", None, Reason.UNSAFE_SOURCE), ("https://node.example/v1", None, Reason.UNSAFE_SOURCE),
        ("https://public.example/v1", (), Reason.EGRESS_REFUSED),
    ):  # fmt: skip
        peers.limit(allowed)
        async with Door(Endpoint(url=url, model="m")).open() as client:
            with pytest.raises(RunFailed) as failed:
                await client.get("/models")
        assert failed.value.reason is reason


async def test_the_next_address_is_tried_where_one_takes_no_connection(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = int(registry.host.partition(":")[2])
    found = [(0, 0, 0, "", (address, number)) for address in ("127.77.0.9", "127.0.0.1")]
    monkeypatch.setattr(net, "_resolve", lambda host, port: found)
    registry.always("GET /", Answer(body=b"{}"))
    host = f"two.example:{number}"
    gate = Gate(trusted=(host,))
    async with httpx.AsyncClient(transport=AsyncTransport(gate, httpx.Limits())) as client:
        assert (await client.get(f"http://{host}/")).status_code == 200
    assert await asyncio.to_thread(_status, gate, f"http://{host}/") == 200


def _status(gate: Gate, url: str) -> int:
    with httpx.Client(transport=net.Transport(gate)) as client:
        return client.get(url).status_code


def test_a_run_keeps_to_its_own_list(tmp_path: Path, asked: list[str]) -> None:
    data = {"source": {"uri": "https://public.example/d"}, "format": "Messages"}
    run = {"type": "Train", "run": "r", "train": data, "output": {"repository": "r.example/x"},
           "egress": [{"host": "r.example", "port": 443}]}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(run))

    def work(run: TrainRun, context: Context) -> Report:
        Gate().addresses(httpx.URL(run.train.source.uri))
        return Report(outcome="Succeeded")

    report = execute({TrainRun: work}, [str(tmp_path / "run.json")], Context(tmp_path))
    assert report.reason is Reason.EGRESS_REFUSED
    assert report.message == "public.example:443 is not listed"
    assert FOR not in report.message

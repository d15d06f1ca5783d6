"""Servers asked in turn what they answered: how many, how often, of what time, and what is made of words that cannot be."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from slmops.api.conditions import timestamp
from slmops.api.edgedeployment import EdgeDeployment
from slmops.cluster.monitors import AT_ONCE, HELD, ROUND_SECONDS, Monitors
from slmops.cluster.objects import Key
from slmops.monitoring.baseline import Frozen, config_map
from slmops.state import Heard, Manifest
from tests.unit import virtualnet
from tests.unit.copies import fresh
from tests.unit.fleet_builders import live, pod, servers
from tests.unit.monitoring.worlds import NOW, World, served


class Nodes:
    """Servers, and the client that asks them."""

    def __init__(self, count: int = 3, **monitoring: Any) -> None:
        self.world = World(**monitoring)
        daemon_set = self.world.children[1]
        self.pods = [pod(daemon_set, f"n{number:03}", ip=f"10.0.0.{number}") for number in range(count)]
        self.asked: list[tuple[str, int, int]] = []
        """Which were asked: address, port, seconds."""
        self.said: Any = served(10).model_dump(mode="json")
        self.hang: set[str] = set()
        self.monitors = Monitors(self)  # type: ignore[arg-type]
        self.now = NOW

    async def monitoring(self, asked: Manifest, port: int, seconds: int) -> Any:
        """In the place of the client's."""
        address = asked["status"]["podIP"]
        self.asked.append((address, port, seconds))
        if address in self.hang:
            await asyncio.sleep(3600)
        return self.said(address) if callable(self.said) else self.said

    async def listen(self, after: float = 60.0) -> Heard | None:
        """One pass, so many seconds later: what is known of the pool then."""
        self.now += timedelta(seconds=after)
        self.asked.clear()
        resource = EdgeDeployment.model_validate(self.world.body)
        found = await self.monitors.heard(resource, self.world.children, self.pods, self.now)
        return found.get("farms")


async def test_servers_are_asked_as_often_as_is_declared_and_each_pass_knows_what_they_said() -> None:
    nodes = Nodes()
    found = await nodes.listen()
    assert found is not None
    assert (found.servers, found.window.answers) == (3, 30)
    for _ in range(5):
        assert await nodes.listen(after=10) == found
        assert nodes.asked == []
    await nodes.listen(after=10)
    assert len({address for address, _, _ in nodes.asked}) == 3


async def test_a_pool_that_is_several_is_asked_by_each_of_them() -> None:
    nodes = Nodes()
    nodes.world.body["spec"]["pools"][0]["variant"] = "Auto"
    nodes.world.children[1]["metadata"]["labels"]["slmops.dev/pool"] = "farms.small"
    assert await nodes.listen() is None, "there is none of that name"
    resource = EdgeDeployment.model_validate(nodes.world.body)
    found = await nodes.monitors.heard(resource, nodes.world.children, nodes.pods, nodes.now)
    assert found["farms.small"].servers == 3


async def test_of_a_large_pool_some_are_asked_at_a_time_and_all_in_turn() -> None:
    nodes, seen = Nodes(50), set[str]()
    for turn in range(3):
        found = await nodes.listen()
        now = {address for address, _, _ in nodes.asked}
        assert len(now) <= AT_ONCE
        assert found is not None
        assert found.servers == min(50, AT_ONCE * (turn + 1))
        seen |= now
    assert len(seen) == 50


async def test_the_words_of_so_many_servers_are_held() -> None:
    nodes = Nodes(130)
    for _ in range(8):
        found = await nodes.listen()
    assert found is not None
    assert found.servers == HELD


async def test_what_is_asked_for_is_what_the_revision_did_and_no_more_than_a_window() -> None:
    nodes = Nodes(1, window="45m")
    await nodes.listen(after=60)
    assert [seconds for _, _, seconds in nodes.asked] == [31 * 60, 31 * 60], "stable for 30 min: all of it, for both"
    await nodes.listen(after=3600)
    assert [seconds for _, _, seconds in nodes.asked] == [45 * 60, 91 * 60]
    await nodes.listen(after=30 * 3600)
    assert [seconds for _, _, seconds in nodes.asked] == [45 * 60, 24 * 3600], "servers remember a day"


async def test_once_there_is_a_baseline_only_what_came_after_it_is_judged() -> None:
    nodes = Nodes(1)
    await nodes.listen()
    resource = EdgeDeployment.model_validate(nodes.world.body)
    made = config_map(resource, nodes.world.name, {"farms": Frozen(nodes.now, served(500))})
    nodes.world.children.append(live(made))
    nodes.said = None
    assert await nodes.listen(after=600) is None, "what was told before is of another time"
    assert [seconds for _, _, seconds in nodes.asked] == [600], "and nothing more is needed"
    nodes.said = served(7).model_dump(mode="json")
    found = await nodes.listen(after=600)
    assert found is not None
    assert (found.window.answers, found.first) == (7, None)


async def test_without_drift_no_baseline_is_asked_for() -> None:
    nodes = Nodes(1, drift=None)
    found = await nodes.listen()
    assert len(nodes.asked) == 1
    assert found is not None
    assert found.first is None


async def test_the_port_is_that_of_the_servers_and_not_of_the_spec() -> None:
    nodes = Nodes(1)
    nodes.world.body["spec"]["runtime"] = {"port": 9999}
    await nodes.listen()
    assert {port for _, port, _ in nodes.asked} == {8080}


async def test_only_ready_servers_of_the_stable_revision_are_asked() -> None:
    nodes = Nodes(2)
    other = fresh(nodes.world.body)
    other["spec"]["runtime"] = {"maxQueue": 3}
    candidate = servers(EdgeDeployment.model_validate(other), track="candidate")
    nodes.world.children += candidate
    nodes.pods += [pod(candidate[1], "n900", ip="10.9.0.1"),
                   pod(nodes.world.children[1], "n901", ip="10.9.0.2", ready=False),
                   pod(nodes.world.children[1], "n902", ip="10.9.0.3", deleting=True)]  # fmt: skip
    await nodes.listen()
    assert {address for address, _, _ in nodes.asked} == {"10.0.0.0", "10.0.0.1"}


@pytest.mark.parametrize(
    "said",
    [None, {"answers": -1}, {"answers": 10**30}, {"answers": 5}, {"answers": "many"}, {"finish": [1]}, {"bins": 2},
     {"errors": 1e308}, {"seconds": "x"}, served(1).model_dump() | {"prompt_content_half": (9,) * 256},
     served(1).model_dump() | {"errors": 2**53 - 1}, {"prompt_tokens": [0] * 10_000}, {"a": {"b": 1}, "answers": None}],
)  # fmt: skip
async def test_words_that_cannot_be_are_no_words(said: Any) -> None:
    nodes = Nodes(2)
    nodes.said = lambda address: said if address == "10.0.0.0" else served(4).model_dump(mode="json")
    found = await nodes.listen()
    assert found is not None
    assert (found.servers, found.window.answers) == (1, 4), "and the others are heard"


async def test_unknown_fields_of_a_newer_server_are_left_out() -> None:
    nodes = Nodes(1)
    nodes.said = served(4).model_dump(mode="json") | {"future": [1, 2, 3]}
    found = await nodes.listen()
    assert found is not None
    assert found.window.answers == 4


def test_servers_that_hang_hold_a_pass_up_for_a_moment_and_the_others_are_heard() -> None:
    async def scenario() -> None:
        nodes = Nodes(10)
        nodes.hang = {"10.0.0.3", "10.0.0.7"}
        begun = virtualnet.now()
        found = await nodes.listen()
        assert virtualnet.now() - begun <= ROUND_SECONDS + 0.1
        assert found is not None
        assert found.servers == 8

    virtualnet.run(scenario())


async def test_what_is_gone_or_too_old_is_forgotten() -> None:
    nodes = Nodes(2)
    await nodes.listen()
    nodes.pods.pop()
    found = await nodes.listen()
    assert found is not None
    assert found.servers == 1
    nodes.said = None
    found = await nodes.listen(after=1800)
    assert found is not None
    assert found.servers == 1, "half an hour old"
    assert await nodes.listen(after=1900) is None
    nodes.said = served(4).model_dump(mode="json")
    assert await nodes.listen() is not None
    nodes.monitors.forget(Key("EdgeDeployment", "edge-ai", "chat"))
    nodes.said = None
    assert await nodes.listen(after=1) is None


async def test_another_stable_revision_is_asked_at_once_and_anew() -> None:
    nodes = Nodes(1)
    await nodes.listen()
    nodes.world.promote("b")
    nodes.world.body["status"]["stable"]["since"] = timestamp(nodes.now)
    nodes.pods = [pod(nodes.world.children[1], "n000")]
    nodes.said = served(2).model_dump(mode="json")
    found = await nodes.listen(after=1)
    assert found is not None
    assert found.window.answers == 2


@pytest.mark.parametrize("since", ["", "never", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
async def test_a_status_of_anybodys_making_breaks_nothing(since: str) -> None:
    nodes = Nodes(1)
    nodes.world.body["status"]["stable"]["since"] = since
    assert await nodes.listen() is not None
    assert all(1 <= seconds <= 24 * 3600 for _, _, seconds in nodes.asked)


async def test_without_monitoring_nobody_is_asked() -> None:
    nodes = Nodes(1)
    nodes.world.body["spec"].pop("monitoring")
    assert await nodes.listen() is None
    assert nodes.asked == []
    before = Nodes(1)
    before.world.body["status"] = {}
    assert await before.listen() is None
    assert before.asked == []

"""Monitoring in whole passes against a scripted API server: what is asked, made, written and told to whom."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from slmops.api.edgedeployment import EdgeDeployment
from slmops.cluster.objects import CONFIG_MAP, DAEMON_SET, EDGE_DEPLOYMENT, FINE_TUNE, JOB, NODE, POD, Key
from slmops.contract import Served
from slmops.state import Manifest
from tests.unit import builders
from tests.unit.desk import GOOD, A, Desk, end, play
from tests.unit.fakeapi import FakeApi
from tests.unit.fleet_builders import manifest, node, pod, revision, servers
from tests.unit.monitoring.worlds import OTHER, WATCH, asked, served

CHAT = Key("EdgeDeployment", "farm", "chat")
SPEC = manifest(monitoring={**WATCH, "retrain": {"fineTune": {"name": "a"}}})["spec"]
FT = "/finetunes/a"


class Watching:
    """An EdgeDeployment that serves, its servers, and a FineTune that has succeeded."""

    def __init__(self, api: FakeApi, desk: Desk) -> None:
        self.api, self.desk = api, desk
        self.said: Served | None = served(200)
        self.asked = 0
        desk.reconciler._monitors._cluster.monitoring = self._monitoring  # type: ignore[method-assign]

    async def _monitoring(self, pod: Manifest, port: int, seconds: int) -> Any:
        self.asked += 1
        return self.said.model_dump(mode="json") if self.said is not None else None

    async def begin(self) -> None:
        """Until there is a baseline and the FineTune has been trained."""
        api, desk = self.api, self.desk
        await desk.passes(A)
        end(api, desk.job(), GOOD, builders.COMPLETE)
        await desk.passes(A)
        await desk.passes(A)
        assert desk.condition("Succeeded")["status"] == "True"
        body = api.put(EDGE_DEPLOYMENT, "chat", spec=SPEC)
        resource = EdgeDeployment.model_validate(body)
        found = servers(resource)
        for child, gvk in zip(found, (CONFIG_MAP, DAEMON_SET), strict=True):
            meta = {k: v for k, v in child["metadata"].items() if k != "uid"}
            fields = {k: v for k, v in child.items() if k not in ("metadata", "kind", "apiVersion")}
            api.put(gvk, meta["name"], metadata=meta | {"namespace": "farm"}, **fields)
        made = api.all(DAEMON_SET)[0]
        mine = pod(made, "n0")
        mine["metadata"].pop("uid")
        api.put(POD, mine["metadata"]["name"], metadata=mine["metadata"] | {"namespace": "farm"}, spec=mine["spec"],
                status=mine["status"])  # fmt: skip
        there = node("n0")
        api.put(NODE, "n0", metadata={"labels": there["metadata"]["labels"]}, status=there["status"])
        stable = {"revision": revision(resource).name, "since": "2026-03-01T11:00:00Z"}
        api.put(EDGE_DEPLOYMENT, "chat", spec=SPEC, status={"stable": stable})
        for _ in range(10):
            await desk.passes(CHAT)
        assert desk.condition("WithinBounds", EDGE_DEPLOYMENT, "chat")["status"] == "True"

    def retrain(self) -> str | None:
        """The FineTune's annotation."""
        found = self.api.get(FINE_TUNE, "a")["metadata"].get("annotations") or {}
        return found.get("slmops.dev/retrain")

    async def drift(self, passes: int = 8) -> None:
        """Other prompts come."""
        self.said = asked(200, OTHER)
        for _ in range(passes):
            await self.desk.passes(CHAT)


def watching(scenario: Callable[[FakeApi, Desk, Watching], Awaitable[None]]) -> None:
    async def main(api: FakeApi, desk: Desk) -> None:
        found = Watching(api, desk)
        await found.begin()
        await scenario(api, desk, found)

    play(main)


def test_a_breach_is_one_new_run_and_both_say_why() -> None:
    async def scenario(api: FakeApi, desk: Desk, found: Watching) -> None:
        before = desk.job()["metadata"]["name"]
        spec = api.get(FINE_TUNE, "a")["spec"]
        await found.drift()
        said = found.retrain()
        assert said is not None
        assert "EdgeDeployment chat revision" in said
        assert A in desk.woken, "our own write makes no event"
        after = api.get(FINE_TUNE, "a")
        assert (after["spec"], after["metadata"]["generation"]) == (spec, 1), "the spec is the user's"
        for _ in range(3):
            await desk.passes(A)
            await desk.passes(CHAT)
        assert desk.job()["metadata"]["name"] != before
        assert len([r for r in api.writes() if r.path.endswith(FT) and r.method == "PATCH"]) == 1
        retrains = [event for event in await desk.events() if event[1] == "Retrain"]
        assert len(retrains) == 2
        assert all("PromptContent" in note for _, _, note in retrains)
        assert any(reason == "Drifted" for _, reason, _ in await desk.events())
        assert desk.status()["retrain"]["why"] == said
        assert desk.status(EDGE_DEPLOYMENT, "chat")["monitoring"]["retrain"]["outcome"] == "Running"

    watching(scenario)


def test_when_nothing_changes_nothing_is_written_though_servers_are_asked() -> None:
    async def scenario(api: FakeApi, desk: Desk, found: Watching) -> None:
        for _ in range(40):
            await desk.passes(CHAT)
        before = found.asked
        for _ in range(20):
            await desk.silent(CHAT)
        assert found.asked > before

    watching(scenario)


def test_a_finetune_that_changed_meanwhile_is_looked_at_again_before_it_is_asked() -> None:
    async def scenario(api: FakeApi, desk: Desk, found: Watching) -> None:
        changed = []

        def somebody(request: web.Request) -> None:
            if request.method == "PATCH" and request.path.endswith(FT) and not changed:
                changed.append(request.path)
                api.put(FINE_TUNE, "a", spec={**api.get(FINE_TUNE, "a")["spec"], "merge": False})

        api.faults.append(somebody)
        await found.drift()
        assert changed
        assert found.retrain() is None, "it has another spec now, which is to be trained first"
        waits = desk.status(EDGE_DEPLOYMENT, "chat")["monitoring"]["waiting"]
        assert waits == "FineTune a is running"

    watching(scenario)


def test_what_the_api_server_refuses_is_no_retrain() -> None:
    async def scenario(api: FakeApi, desk: Desk, found: Watching) -> None:
        fault = api.refuse(403, method="PATCH", path=FT)
        await found.drift()
        assert found.retrain() is None
        assert desk.condition("Accepted", EDGE_DEPLOYMENT, "chat")["reason"] == "ChildRefused"
        assert "retrain" not in desk.status(EDGE_DEPLOYMENT, "chat")["monitoring"]
        api.faults.remove(fault)
        await desk.passes(CHAT)
        assert found.retrain() is not None

    watching(scenario)


def test_a_leader_that_takes_over_goes_on_with_the_baseline_and_asks_no_second_time() -> None:
    async def scenario(api: FakeApi, desk: Desk, found: Watching) -> None:
        await found.drift()
        said, frozen = found.retrain(), [c["data"] for c in api.all(CONFIG_MAP) if "baseline" in c["metadata"]["name"]]
        assert said is not None
        desk.reconciler._monitors.forget(CHAT)
        for _ in range(20):
            await desk.passes(CHAT)
        assert found.retrain() == said
        assert [c["data"] for c in api.all(CONFIG_MAP) if "baseline" in c["metadata"]["name"]] == frozen
        assert len(api.all(JOB)) == 1

    watching(scenario)

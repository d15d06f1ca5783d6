"""What others do to the operator's children, with the whole operator against a scripted API server."""

import asyncio

from slmops.cluster.objects import (
    CONFIG_MAP,
    FINE_TUNE,
    GVK,
    JOB,
    MANAGED_BY,
    MANAGER,
    NETWORK_POLICY,
    PERSISTENT_VOLUME_CLAIM,
    SERVICE,
    Manifest,
)
from tests.unit.fakeapi import FakeApi, eventually
from tests.unit.replica import SPEC, Replica, operate, works

KINDS = (CONFIG_MAP, JOB, PERSISTENT_VOLUME_CLAIM, SERVICE, NETWORK_POLICY)
RUN = {"nodes": 2, "volume": {"size": "10Mi"}, "egress": []}
"""A FineTune with this has a child of each kind."""


def only(api: FakeApi, gvk: GVK) -> Manifest:
    (found,) = api.all(gvk)
    return found


def test_a_child_that_lost_our_label_is_found_again_and_not_made_twice() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        api.put(FINE_TUNE, "a", spec=SPEC | {"run": RUN})
        await works(api)
        for gvk in KINDS:
            before = only(api, gvk)
            labels = {key: value for key, value in before["metadata"]["labels"].items() if key != MANAGED_BY}
            asked = len(api.requests)
            api.put(gvk, before["metadata"]["name"], metadata={"labels": labels})
            await eventually(lambda gvk=gvk: only(api, gvk)["metadata"]["labels"].get(MANAGED_BY) == MANAGER, 10)
            assert only(api, gvk)["metadata"]["uid"] == before["metadata"]["uid"]
            said = {(r.method, r.path.rpartition("/")[2]) for r in api.requests[asked:] if f"/{gvk.plural}" in r.path}
            assert {("GET", before["metadata"]["name"]), ("PATCH", before["metadata"]["name"])} <= said
        writes = len(api.writes())
        await asyncio.sleep(60)
        assert api.writes()[writes:] == [], "and then it is at rest"

    operate(scenario)


def test_children_that_another_spec_does_not_want_go() -> None:
    async def scenario(api: FakeApi, found: Replica) -> None:
        api.put(FINE_TUNE, "a", spec=SPEC | {"run": RUN})
        old = (await works(api))["metadata"]["uid"]
        api.put(FINE_TUNE, "a", spec=SPEC)
        await eventually(
            lambda: [job["metadata"]["uid"] for job in api.all(JOB)] != [old] and len(api.all(JOB)) == 1, 10
        )
        await asyncio.sleep(5)
        assert [len(api.all(gvk)) for gvk in KINDS] == [1, 1, 0, 0, 0]

    operate(scenario)

"""How the tests of the client get at it: a scripted API server, and the client against it, in virtual time."""

from collections.abc import Awaitable, Callable
from typing import Any

from slmops.cluster.client import Cluster
from slmops.cluster.objects import Manifest
from tests.unit import virtualnet
from tests.unit.fakeapi import FakeApi

Scenario = Callable[[FakeApi, Cluster], Awaitable[Any]]


def play(scenario: Scenario, **options: Any) -> Any:
    async def main() -> Any:
        async with FakeApi() as api, Cluster(api.connection(), **options) as cluster:
            return await scenario(api, cluster)

    return virtualnet.run(main())


def child(name: str = "job", owner: str = "mine", **fields: Any) -> Manifest:
    owners = [{"apiVersion": "slmops.dev/v1alpha1", "kind": "FineTune", "name": "a", "uid": owner, "controller": True}]
    metadata = {"name": name, "namespace": "farm", "ownerReferences": owners}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"suspend": False}, **fields}

"""The server's manifests: DaemonSet, configuration, Service."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from slmops.api.edgedeployment import EdgeDeployment
from slmops.cluster.objects import differs
from slmops.contract import ServeRun
from slmops.plan.serving import bound, config_map, daemon_set, service
from slmops.settings import Images, Settings
from slmops.state import Manifest
from tests.properties.valid import check_child
from tests.unit.fleet_builders import SETTINGS, configuration, deployment, hosts, image, live, revision, servers, track

ROOT = Path(__file__).parents[3]
FARMS = {"name": "farms", "selector": {"matchLabels": {"pool": "farms", "region": "north"}}}


def _set(resource: EdgeDeployment, of_track: str = "stable", only: tuple[str, ...] | None = None,
         settings: Settings = SETTINGS) -> Manifest:  # fmt: skip
    return daemon_set(resource, resource.spec.pools[0], revision(resource), settings, track=of_track, only=only)


def _container(found: Manifest) -> Manifest:
    (container,) = found["spec"]["template"]["spec"]["containers"]
    return dict(container)


@pytest.mark.parametrize("of_track", ["stable", "candidate"])
def test_all_children_are_valid_and_ours(of_track: str) -> None:
    resource = deployment(pools=[FARMS], runtime={"nodePort": 30080})
    for child in (_set(resource, of_track, ("a",)), config_map(resource, resource.spec.pools[0], revision(resource)),
                  service(resource)):  # fmt: skip
        check_child(child, resource)


def test_the_model_is_mounted_by_digest_and_read_only() -> None:
    pod = _set(deployment("m"))["spec"]["template"]["spec"]
    assert {"name": "model", "image": {"reference": image("m"), "pullPolicy": "IfNotPresent"}} in pod["volumes"]
    (mount,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "model"]
    assert mount["readOnly"] is True


def test_the_server_is_told_what_the_user_chose() -> None:
    resource = deployment(runtime={"port": 9090, "maxQueue": 8, "maxLength": 512, "engine": "FoundryLocal"})
    run = ServeRun.model_validate(configuration(config_map(resource, resource.spec.pools[0], revision(resource))))
    assert (run.port, run.max_queue, run.max_length, run.engine) == (9090, 8, 512, "FoundryLocal")
    assert (run.model_name, run.revision) == ("chat", revision(resource).name)
    assert _container(_set(resource))["ports"] == [{"name": "http", "containerPort": 9090}]


def test_a_pools_own_adapter_and_generation_reach_its_servers_and_no_others() -> None:
    own = FARMS | {"adapter": "irrigation", "generation": {"temperature": 0.2, "maxLength": 256}}
    others = {"name": "others", "selector": {"matchLabels": {"pool": "others"}}}
    resource = deployment(pools=[own, others], runtime={"maxLength": 512})
    runs = [configuration(config_map(resource, pool, revision(resource))) for pool in resource.spec.pools]
    assert (runs[0]["adapter"], runs[0]["max_length"], runs[0]["defaults"]) == ("irrigation", 256, {"temperature": 0.2})
    assert (runs[1].keys() & {"adapter", "defaults"}, runs[1]["max_length"]) == (set(), 512)


def test_a_server_that_goes_answers_a_little_longer_and_still_has_time_to_end() -> None:
    found = _set(deployment())
    pause = _container(found)["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = found["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    drain = re.search(r"^DRAIN_SECONDS = (\d+)$", (ROOT / "images/edge/slm_edge/__main__.py").read_text(), re.MULTILINE)
    assert drain is not None
    assert 0 < pause < grace - int(drain[1])


def test_the_runtimes_image_is_the_users_or_the_installations() -> None:
    settings = Settings(images=Images(edge="registry.example/edge:9"))
    assert _container(_set(deployment(), settings=settings))["image"] == "registry.example/edge:9"
    own = deployment(runtime={"image": image("own")})
    assert _container(_set(own, settings=settings))["image"] == image("own")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ({"cpu": "100m", "memory": "256Mi"}, {"memory": "1Gi"})),
        ({"limits": {"memory": "4Gi"}}, ({"cpu": "100m", "memory": "256Mi"}, {"memory": "4Gi"})),
        ({"requests": {"memory": "2Gi"}}, ({"cpu": "100m", "memory": "2Gi"}, {"memory": "2Gi"})),
        ({"limits": {"memory": "128Mi"}}, ({"cpu": "100m", "memory": "128Mi"}, {"memory": "128Mi"})),
        ({"limits": {"cpu": "50m"}}, ({"cpu": "50m", "memory": "256Mi"}, {"cpu": "50m", "memory": "1Gi"})),
        ({"requests": {"cpu": 2}, "limits": {"nvidia.com/gpu": 1}},
         ({"cpu": "2", "memory": "256Mi"}, {"memory": "1Gi", "nvidia.com/gpu": "1"})),
    ],
)  # fmt: skip
def test_defaults_never_contradict_what_the_user_asked_for(
    wanted: dict[str, Any], expected: tuple[dict[str, str], dict[str, str]]
) -> None:
    """A request above its limit is refused by the API server, and the user never wrote one of the two."""
    resources = _container(_set(deployment(runtime={"resources": wanted})))["resources"]
    assert (resources["requests"], resources["limits"]) == expected


def test_a_pools_own_resources_replace_those_of_the_runtime() -> None:
    small = FARMS | {"resources": {"limits": {"memory": "300Mi"}}}
    resource = deployment(pools=[small], runtime={"resources": {"limits": {"memory": "4Gi"}}})
    assert _container(_set(resource))["resources"]["limits"] == {"memory": "300Mi"}


def test_only_who_has_to_stands_before_a_gate() -> None:
    asked = deployment()
    made = daemon_set(asked, asked.spec.pools[0], revision(asked), SETTINGS, track="candidate", only=["a"], gated=True)
    assert made["spec"]["template"]["spec"]["readinessGates"] == [{"conditionType": "slmops.dev/serving"}]
    assert "readinessGates" not in _set(deployment(), "candidate", ("a",))["spec"]["template"]["spec"]
    assert "readinessGates" not in _set(deployment())["spec"]["template"]["spec"]


def test_a_promotion_changes_no_selector_and_replaces_no_pod() -> None:
    """The selector of a DaemonSet is immutable, and pods are replaced only when somebody deletes them."""
    before, after = _set(deployment(), "candidate", ("a",)), _set(deployment())
    assert before["metadata"]["name"] == after["metadata"]["name"]
    assert before["spec"]["selector"] == after["spec"]["selector"]
    assert before["spec"]["template"]["metadata"] == after["spec"]["template"]["metadata"]
    assert after["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert differs(after, live(before)), "and it is not overlooked"


def test_who_gets_the_revision_is_said_by_pool_and_host_name() -> None:
    resource = deployment(pools=[FARMS])
    everywhere, some = _set(resource), _set(resource, "candidate", ("b.local", "a.local"))
    assert hosts(everywhere) == ("Any", set())
    assert hosts(some) == ("In", {"a.local", "b.local"})
    for found in (everywhere, some):
        affinity = found["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
        (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert term["matchExpressions"][:2] == [
            {"key": "pool", "operator": "In", "values": ["farms"]},
            {"key": "region", "operator": "In", "values": ["north"]},
        ]


def test_a_pools_taints_are_tolerated() -> None:
    toleration = {"key": "edge", "operator": "Exists", "effect": "NoSchedule"}
    resource = deployment(pools=[FARMS | {"tolerations": [toleration]}])
    assert _set(resource)["spec"]["template"]["spec"]["tolerations"] == [toleration]


# --- another revision's DaemonSet


def test_another_revisions_daemon_set_keeps_all_but_its_nodes() -> None:
    (_, old), resource = servers(deployment("a", pools=["farms"])), deployment("b")
    before = copy.deepcopy(old)
    found = bound(old, resource.spec.pools[0], "stable", excluded={"n1.local"})
    assert old == before, "what was observed is not changed"
    assert hosts(found) == ("NotIn", {"n1.local"})
    assert _container(found) == _container(old)
    assert found["spec"]["template"]["metadata"] == old["spec"]["template"]["metadata"]
    check_child(found, resource)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"excluded": {"a"}}, {"excluded": {"a", "b"}}),
        ({"excluded": {"a", "b"}}, {"excluded": {"a"}}),
        ({"excluded": {"a"}}, {}),
        ({}, {"excluded": {"a"}}),
        ({"only": {"a"}}, {"excluded": {"a"}}),
        ({"only": {"a", "b"}}, {"only": {"b"}}),
        ({"only": {"a"}}, {}),
    ],
)
def test_each_change_of_its_nodes_is_seen_as_a_change(first: dict[str, Any], then: dict[str, Any]) -> None:
    """Giving the nodes back to the stable revision is one expression less: it must not pass for the same."""
    (_, old), pool = servers(deployment("a")), deployment("b").spec.pools[0]
    before, after = bound(old, pool, "stable", **first), bound(old, pool, "stable", **then)
    assert differs(after, live(before))
    assert not differs(after, live(after))


def test_on_becoming_stable_it_loses_the_gate_and_on_retiring_it_says_so() -> None:
    resource = deployment("a")
    _, candidate = servers(resource, track="candidate", only=["a"])
    assert "readinessGates" not in bound(candidate, resource.spec.pools[0], "stable")["spec"]["template"]["spec"]
    old = bound(candidate, resource.spec.pools[0], "retired", only={"a"})
    assert old["spec"]["template"]["spec"]["readinessGates"] == [{"conditionType": "slmops.dev/serving"}]
    assert track(old) == "retired"


# --- the Service


def test_one_service_answers_for_all_revisions_and_pools_by_the_nearest_server() -> None:
    resource = deployment(pools=["farms", "barns"], runtime={"port": 9090})
    found = service(resource)
    assert found["metadata"]["name"] == "chat"
    assert found["spec"]["ports"] == [{"name": "http", "port": 9090, "targetPort": "http", "protocol": "TCP"}]
    assert found["spec"]["trafficDistribution"] == "PreferSameNode"
    assert found["spec"]["type"] == "ClusterIP"
    for pool in resource.spec.pools:
        made = daemon_set(resource, pool, revision(resource), SETTINGS, track="stable", only=None)
        assert found["spec"]["selector"].items() <= made["spec"]["template"]["metadata"]["labels"].items()


def test_a_node_port_is_answered_by_that_node_itself() -> None:
    spec = service(deployment(runtime={"nodePort": 30080}))["spec"]
    assert (spec["type"], spec["externalTrafficPolicy"]) == ("NodePort", "Local")
    assert spec["ports"][0]["nodePort"] == 30080

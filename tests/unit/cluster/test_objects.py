"""Paths, keys, pruning, and the comparison that decides whether a pass writes."""

import copy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.cluster.objects import (
    CONFIG_MAP,
    DISTILLATION,
    JOB,
    NODE,
    POD,
    Key,
    differs,
    gvk_of,
    parent_key,
    prune,
    quantity,
    status_differs,
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (POD.path(), "/api/v1/pods"),
        (POD.path("ns", "x", "status"), "/api/v1/namespaces/ns/pods/x/status"),
        (JOB.path("ns"), "/apis/batch/v1/namespaces/ns/jobs"),
        (NODE.path("ignored", "n1"), "/api/v1/nodes/n1"),
        (DISTILLATION.path("ns", "d"), "/apis/slmops.dev/v1alpha1/namespaces/ns/distillations/d"),
    ],
)
def test_paths(path: str, expected: str) -> None:
    assert path == expected


def test_the_kind_of_a_manifest() -> None:
    assert gvk_of({"apiVersion": "batch/v1", "kind": "Job"}) is JOB
    with pytest.raises(KeyError):
        gvk_of({"apiVersion": "v1", "kind": "Secret"})


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"slmops.dev/kind": "FineTune", "slmops.dev/name": "a"}, Key("FineTune", "ns", "a")),
        ({"slmops.dev/kind": "FineTune"}, None),
        ({"slmops.dev/kind": "", "slmops.dev/name": "a"}, None),
        (None, None),
    ],
)
def test_the_parent_of_a_child(labels: dict[str, str] | None, expected: Key | None) -> None:
    assert parent_key({"metadata": {"namespace": "ns", "name": "x", "labels": labels}}) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1000m", "1"), ("1Gi", "1073741824"), ("1024Mi", "1073741824"), (1, "1"), (0.5, "0.5"), ("2e3", "2000"),
        ("1E", "1000000000000000000"), ("1k", "1000"), ("100u", "0.0001"), ("5", "5"), (" 1 ", "1"),
    ],
)  # fmt: skip
def test_quantities(text: object, value: str) -> None:
    assert quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi x", "1Xi", "NaN", "Infinity", "m", None, True, [], "--1", "1.2.3"])
def test_what_is_no_quantity(text: object) -> None:
    assert quantity(text) is None


LIVE: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "x", "labels": {"a": "1", "b": "2"}, "finalizers": ["theirs", "ours"], "uid": "u"},
    "spec": {
        "backoffLimit": 0,
        "suspend": False,
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "injected",
                        "image": "proxy",
                    },
                    {
                        "name": "run",
                        "image": "trainer@sha256:1",
                        "args": ["a", "b"],
                        "resources": {"limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"}},
                        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                        "volumeMounts": [{"name": "work", "mountPath": "/a"}, {"name": "work", "mountPath": "/b"}],
                        "securityContext": {"capabilities": {"drop": ["ALL"]}},
                        "terminationMessagePath": "/dev/termination-log",
                    },
                ],
                "volumes": [{"name": "work", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "token", "projected": {}}],
                "tolerations": [
                    {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
                    {"key": "gpu", "operator": "Exists", "effect": "NoExecute"},
                ],
                "schedulerName": "default-scheduler",
            }
        },
    },
    "status": {"active": 1},
}


def container(**fields: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "run", **fields}]}}}}


def pod(**fields: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": fields}}}


@pytest.mark.parametrize(
    "desired",
    [
        {},
        {"metadata": {"labels": {"a": "1"}}},
        {"metadata": {"labels": {}, "annotations": None}},
        {"metadata": {"finalizers": ["ours"]}},
        {"spec": {"backoffLimit": 0, "suspend": False}},
        container(image="trainer@sha256:1", args=["a", "b"]),
        container(args=("a", "b")),
        container(resources={"limits": {"cpu": "1000m", "memory": "1024Mi", "nvidia.com/gpu": 1}}),
        container(env=[{"name": "B", "value": "2"}]),
        container(env=[{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]),
        container(volumeMounts=[{"name": "work", "mountPath": "/b"}]),
        container(securityContext={"capabilities": {"drop": ["ALL"], "add": []}}),
        container(command=None, lifecycle={}, workingDir=""),
        pod(volumes=[{"name": "work", "emptyDir": {"sizeLimit": "1024Mi"}}]),
        pod(
            tolerations=[
                {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
                {"key": "gpu", "operator": "Exists", "effect": "NoExecute"},
            ]
        ),
        pod(nodeSelector={}, initContainers=[]),
    ],
)
def test_live_that_holds_all_that_is_desired_does_not_differ(desired: dict[str, Any]) -> None:
    assert not differs(desired, LIVE)


@pytest.mark.parametrize(
    "desired",
    [
        {"metadata": {"labels": {"a": "3"}}},
        {"metadata": {"labels": {"c": "1"}}},
        {"metadata": {"finalizers": ["another"]}},
        {"spec": {"backoffLimit": 1}},
        {"spec": {"backoffLimit": False}},
        {"spec": {"suspend": 0}},
        {"spec": {"parallelism": 1}},
        {"spec": {"template": ["x"]}},
        container(image="trainer@sha256:2"),
        container(args=["a"]),
        container(args=["b", "a"]),
        container(args=["a", "b", "c"]),
        container(resources={"limits": {"cpu": "2"}}),
        container(resources={"requests": {"cpu": "1"}}),
        container(resources={"limits": {"cpu": "many"}}),
        container(env=[{"name": "A", "value": "1000m"}]),
        container(env=[{"name": "C", "value": "1"}]),
        container(volumeMounts=[{"name": "work", "mountPath": "/b", "readOnly": True}]),
        container(volumeMounts=[{"name": "other", "mountPath": "/b"}]),
        pod(automountServiceAccountToken=False),
        pod(containers=[{"name": "absent"}]),
        pod(volumes=[{"name": "work", "emptyDir": {"sizeLimit": "2Gi"}}]),
        pod(tolerations=[{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]),
        pod(
            tolerations=[
                {"key": "gpu", "operator": "Exists", "effect": "NoExecute"},
                {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
            ]
        ),
    ],
)
def test_what_is_desired_and_not_there_differs(desired: dict[str, Any]) -> None:
    assert differs(desired, LIVE)


def test_a_number_in_an_argument_is_a_text() -> None:
    assert differs(container(args=["1000m"]), container(args=["1"]))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab1mG", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcx"), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(["metadata", "spec", "limits"]), VALUES, max_size=3)


@given(OBJECTS)
def test_nothing_differs_from_itself(body: dict[str, Any]) -> None:
    before = copy.deepcopy(body)
    assert not differs(body, body)
    assert not status_differs({"status": body}, {"status": body})
    assert body == before


@given(OBJECTS, st.sampled_from(["other", "zz"]), VALUES)
def test_fields_of_others_do_not_make_a_difference(body: dict[str, Any], field: str, value: object) -> None:
    assert not differs(body, {**body, field: value})


@given(OBJECTS, OBJECTS)
def test_after_applying_there_is_no_difference(desired: dict[str, Any], live: dict[str, Any]) -> None:
    assert not differs(desired, {**live, **desired})


@pytest.mark.parametrize(
    ("desired", "live", "expected"),
    [
        ({"phase": "Ready"}, {"phase": "Ready"}, False),
        ({"phase": "Ready", "progress": None, "inputs": {}}, {"phase": "Ready"}, False),
        ({"phase": "Ready"}, {"phase": "Ready", "progress": {"step": 1}}, True),
        ({"phase": "Ready"}, None, True),
        (None, None, False),
        ({"n": 0}, {}, True),
        ({"n": 0}, {"n": False}, True),
        ({"n": 1}, {"n": 1.0}, False),
        ({"conditions": [{"type": "A"}]}, {"conditions": [{"type": "B"}]}, True),
    ],
)
def test_status_is_compared_as_a_whole(desired: Any, live: Any, expected: bool) -> None:
    assert status_differs({"status": desired}, {"status": live}) is expected


def test_pruning_leaves_the_body_alone() -> None:
    body = {"metadata": {"name": "x", "managedFields": [1], "annotations": {"a": "1", LAST: "{}"}}, "data": {"k": "v"}}
    before = copy.deepcopy(body)
    pruned = prune(CONFIG_MAP, body)
    assert body == before
    metadata = {"name": "x", "annotations": {"a": "1"}}
    assert pruned == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": "v"}}


LAST = "kubectl.kubernetes.io/last-applied-configuration"


def test_a_pod_keeps_what_is_read_of_it() -> None:
    spec = {"nodeName": "n", "containers": [{"name": "c"}], "readinessGates": [{"conditionType": "x"}], "affinity": {}}
    pruned = prune(POD, {"metadata": {"name": "x"}, "spec": spec, "status": {"podIP": "10.0.0.1"}})
    assert pruned["spec"] == {"nodeName": "n", "readinessGates": [{"conditionType": "x"}]}
    assert pruned["status"] == {"podIP": "10.0.0.1"}


def test_the_job_controllers_book_keeping_does_not_change_a_job() -> None:
    def job(ended: bool = False, suspend: bool = False, **status: Any) -> dict[str, Any]:
        conditions = [{"type": "Complete", "status": "True"}] if ended else []
        spec = {"suspend": suspend, "template": {"spec": {"containers": [{}]}}}
        return {"metadata": {"name": "x"}, "spec": spec, "status": {"conditions": conditions, **status}}

    assert prune(JOB, job(active=1)) == prune(JOB, job(active=1, ready=1, uncountedTerminatedPods={"succeeded": ["u"]}))
    assert prune(JOB, job()) != prune(JOB, job(ended=True))
    assert prune(JOB, job()) != prune(JOB, job(suspend=True))
    assert prune(JOB, job(completionTime="2026-01-01T00:00:00Z"))["status"]["completionTime"] == "2026-01-01T00:00:00Z"


def test_a_pod_that_the_job_controller_has_counted_is_the_same_pod() -> None:
    pod = {"metadata": {"name": "x", "finalizers": ["batch.kubernetes.io/job-tracking"]}, "status": {}}
    assert prune(POD, pod) == prune(POD, {"metadata": {"name": "x"}, "status": {}})


def test_a_heartbeat_does_not_change_a_node() -> None:
    def node(time: str, ready: str = "True", images: int = 1) -> dict[str, Any]:
        return {
            "metadata": {"name": "n", "labels": {"pool": "farms"}, "annotations": {"cni": time}},
            "spec": {"podCIDR": "10.0.0.0/24", "taints": [{"key": "x", "effect": "NoSchedule"}]},
            "status": {
                "conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": time, "message": time}],
                "capacity": {"cpu": "4"},
                "images": [{}] * images,
                "nodeInfo": {"architecture": "arm64", "bootID": time},
            },
        }

    assert prune(NODE, node("1")) == prune(NODE, node("2", images=5))
    assert prune(NODE, node("1")) != prune(NODE, node("1", ready="Unknown"))
    assert prune(NODE, node("1"))["metadata"]["labels"] == {"pool": "farms"}
    assert prune(NODE, node("1"))["spec"]["taints"]

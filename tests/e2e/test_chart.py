"""The chart: what it refuses, what it renders, and a release of its own from install to uninstall."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from demo.steps import ROOT, SYSTEM, Manifest, install, wait_for
from tests.e2e.platform import NAMESPACE, REFUSING, Platform, vacate, waiting

pytestmark = pytest.mark.cluster
CHART = ROOT / "charts" / "slmops"
VALUES = CHART / "ci" / "values.yaml"
RELEASE, HOME, SERVED = "second", "slmops-second", "slmops-second-served"
KINDS = {f"{kind}.slmops.dev" for kind in ("distillations", "finetunes", "quantizedmodels", "edgedeployments")}


def _render(platform: Platform, *arguments: str) -> list[Manifest]:
    """What the chart makes of values, without asking a cluster."""
    text = platform.kubectl.helm("template", "farm", CHART, "-n", "ops", "-f", VALUES, "--kube-version", "1.37.0",
                                 *arguments)  # fmt: skip
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def _of(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


# --- values


def test_lint_finds_nothing(platform: Platform) -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in platform.kubectl.helm("lint", "--strict", CHART, "-f", VALUES)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("images.operator=Foo/Bar", 'images.operator is "Foo/Bar": expected an image, best by digest, for example '
                                    "registry.example/slmops/operator@sha256:…"),
        ("images.teacher=x/y", "at '/images': additional properties 'teacher' not allowed"),
        ("replicas=0", "at '/replicas': minimum: got 0, want 1"),
        ("replicas=two", "at '/replicas': got string, want integer"),
        ("replica=2", "at '': additional properties 'replica' not allowed"),
        ("logLevel=chatty", "at '/logLevel': value must be one of 'debug', 'info', 'warning', 'error'"),
        ("resyncSeconds=1", "at '/resyncSeconds': minimum: got 1, want 10"),
        ("watchNamespaces={Edge_AI}", 'watchNamespaces holds "Edge_AI": expected names of namespaces'),
        ("plainHttpRegistries={http://r:5000/x}", 'plainHttpRegistries holds "http://r:5000/x": expected host or '
                                                  "host:port, without http:// and without a path"),
        ("podMonitor.interval=30x", 'podMonitor.interval is "30x": expected a time with its unit, for example 30s'),
        ("egress.internalRanges={10.0.0.0/33}", 'egress.internalRanges holds "10.0.0.0/33": expected ranges of addresses, '
                                                "for example 10.0.0.0/8 or fc00::/7"),
        ("egress.internalRanges={10.0.0.0}", 'egress.internalRanges holds "10.0.0.0": expected ranges'),
        ("egress.internalRanges={fc00::1::/64}", 'egress.internalRanges holds "fc00::1::/64": expected ranges'),
        ("networkPolicy.apiPorts={70000}", "at '/networkPolicy/apiPorts/0': maximum: got 70,000, want 65,535"),
        ("networkPolicy.apiPorts={https}", "at '/networkPolicy/apiPorts/0': got string, want integer"),
        ("crds.install=maybe", "at '/crds/install': got string, want boolean"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused(platform: Platform, value: str, told: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(told)):
        _render(platform, "--set", value)


def test_without_images_it_says_which_are_missing(platform: Platform) -> None:
    with pytest.raises(RuntimeError) as refused:
        platform.kubectl.helm("template", "farm", CHART, "--kube-version", "1.37.0")
    for name in ("operator", "trainer", "quantizer", "edge", "bench"):
        assert f'images.{name} is ""' in str(refused.value)


# --- what is rendered


def test_a_network_policy_lets_in_and_out_what_the_operator_needs(platform: Platform) -> None:
    (policy,) = _of(_render(platform), "NetworkPolicy")
    (deployment,) = _of(_render(platform), "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert [rule["ports"] for rule in policy["spec"]["ingress"]] == [[{"port": 8080, "protocol": "TCP"}]]
    out = {(port["port"], port["protocol"]) for rule in policy["spec"]["egress"] for port in rule["ports"]}
    assert out == {(443, "TCP"), (6443, "TCP"), (53, "UDP"), (53, "TCP"), (9090, "TCP"), (1024, "TCP")}
    (servers,) = [r for r in policy["spec"]["egress"] if r["ports"][0]["port"] == 1024]
    chosen = servers["to"][0]["podSelector"]["matchLabels"]
    assert chosen["slmops.dev/role"] == "serve", "a server has the port that its EdgeDeployment gives it"
    assert _of(_render(platform, "--set", "networkPolicy.enabled=false"), "NetworkPolicy") == []
    (other,) = _of(_render(platform, "--set", "networkPolicy.apiPorts={16443}"), "NetworkPolicy")
    assert [port["port"] for port in other["spec"]["egress"][0]["ports"]] == [16443, 53, 53]


def test_a_pod_monitor_is_there_where_its_kind_is(platform: Platform) -> None:
    api = ("--api-versions", "monitoring.coreos.com/v1/PodMonitor")
    (monitor,) = _of(_render(platform, *api, "--set", "podMonitor.interval=15s"), "PodMonitor")
    (deployment,) = _of(_render(platform), "Deployment")
    pod = deployment["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["interval"] == "15s"
    assert endpoint["port"] in [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
    assert _of(_render(platform), "PodMonitor") == []
    assert _of(_render(platform, *api, "--set", "podMonitor.enabled=false"), "PodMonitor") == []


def test_the_crds_are_those_of_the_models_and_survive_an_uninstall(platform: Platform) -> None:
    crds = {crd["metadata"]["name"]: crd for crd in _of(_render(platform), "CustomResourceDefinition")}
    assert set(crds) == KINDS
    for name, crd in crds.items():
        assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert crd == yaml.safe_load((ROOT / "crds" / f"{name.partition('.')[0]}.yaml").read_text())
    assert _of(_render(platform, "--set", "crds.install=false"), "CustomResourceDefinition") == []


def test_no_right_is_a_wildcard(platform: Platform) -> None:
    roles = _of(_render(platform), "ClusterRole") + _of(_render(platform), "Role")
    rules = [rule for role in roles for rule in role["rules"]]
    assert len(rules) > 10
    for rule in rules:
        words = [word for part in ("apiGroups", "resources", "verbs") for word in rule[part]]
        assert not [word for word in words if "*" in word], rule
        assert not {"escalate", "bind", "impersonate"} & set(words), rule
        assert "secrets" not in words, rule


# --- a second release


@dataclass
class Second:
    """Another release, of other names, that serves one namespace."""

    platform: Platform
    values: Path
    before: set[str]
    """All objects of its namespace and of the cluster before it came."""

    def upgrade(self, *arguments: str) -> None:
        """Install or upgrade it, and wait until it is ready."""
        self.platform.kubectl.helm("upgrade", "--install", RELEASE, CHART, "-n", HOME, "-f", self.values, "--wait",
                                   "--timeout", "120s", *arguments)  # fmt: skip

    def pods(self) -> list[Manifest]:
        """Its pods that are not going away."""
        found = self.platform.kubectl.items("pods", "-l", f"app.kubernetes.io/instance={RELEASE}", namespace=HOME)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def _everything(platform: Platform) -> set[str]:
    """Kind and name of all objects in the release's namespace and of all that are in none; Events come and go."""
    kubectl = platform.kubectl
    kinds = [kind for kind in kubectl("api-resources", "--verbs=list", "-o", "name").split() if "event" not in kind]
    return set(kubectl("get", ",".join(kinds), "-n", HOME, "-o", "name", "--ignore-not-found").split())


@pytest.fixture(scope="module")
def second(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Second]:
    """The second release, installed."""
    kubectl = platform.kubectl
    for namespace in (HOME, SERVED):
        vacate(kubectl, namespace)
        platform.cluster.namespace(namespace)
    wait_for("the namespace's own objects", lambda: len(_default_objects(platform)) == 2, 30)
    values = tmp_path_factory.mktemp("second") / "values.json"
    values.write_text(json.dumps({"images": platform.images, "watchNamespaces": [SERVED], "crds": {"install": False}}))
    release = Second(platform, values, _everything(platform))
    try:
        release.upgrade()
        yield release
    finally:
        if kubectl.helm("list", "-n", HOME, "--all", "--short").strip():
            kubectl.helm("uninstall", RELEASE, "-n", HOME, "--wait")
        # What the second release owned of the CRDs is the first one's again.
        install(kubectl, platform.images, *platform.cluster.plain_http, REFUSING)
        kubectl("delete", "namespace", HOME, SERVED, "--wait=false")


def _default_objects(platform: Platform) -> list[Manifest]:
    """What Kubernetes itself puts into a new namespace."""
    found = platform.kubectl.items("configmaps,serviceaccounts", namespace=HOME)
    return [m for m in found if m["metadata"]["name"] in ("kube-root-ca.crt", "default")]


def _may(platform: Platform, verb: str, resource: str, namespace: str) -> bool:
    who = f"--as=system:serviceaccount:{HOME}:{RELEASE}-operator"
    return platform.kubectl("auth", "can-i", verb, resource, "-n", namespace, who, check=False).strip() == "yes"


def test_a_second_release_serves_its_namespace_and_has_no_rights_elsewhere(second: Second) -> None:
    platform = second.platform
    for verb, resource in (("create", "jobs"), ("list", "pods"), ("watch", "finetunes")):
        allowed = [ns for ns in (SERVED, HOME, NAMESPACE, SYSTEM) if _may(platform, verb, resource, ns)]
        assert allowed == [SERVED], (verb, resource)
    platform.apply(waiting("waits", SERVED))

    def seen() -> list[dict[str, float]]:
        leaders = [found for pod in second.pods() if (found := platform.metrics(pod))["slmops_leader"]]
        return [{k: v for k, v in found.items() if k.startswith("slmops_objects")} for found in leaders]

    only = [{'slmops_objects{kind="FineTune",phase="Pending"}': 1.0}]
    wait_for("its one resource in its leader's metrics", lambda: seen() == only, 60, lambda: str(seen()))


def test_an_upgrade_restarts_for_a_changed_setting_and_for_nothing_else(second: Second) -> None:
    def names() -> set[str]:
        return {pod["metadata"]["name"] for pod in second.pods()}

    before = names()
    second.upgrade("--set", "networkPolicy.enabled=false")
    assert names() == before
    second.upgrade("--set", "logLevel=debug")
    wait_for("two other pods", lambda: len(names()) == 2 and not names() & before, 60)
    begun = datetime.now(UTC).isoformat()

    def renewed() -> bool:
        spec = (second.platform.kubectl.get("lease", f"{RELEASE}-operator", HOME) or {})["spec"]
        holder = str(spec.get("holderIdentity") or "").partition("_")[0]
        return holder in names() and spec["renewTime"] > begun

    wait_for("one of them to lead", renewed, 30)


def test_an_uninstall_leaves_the_crds_and_everybodys_resources_and_nothing_else(second: Second) -> None:
    """With the CRDs as its own, as a release that was installed first has them."""
    platform, kubectl = second.platform, second.platform.kubectl

    def crds() -> dict[str, str]:
        found = kubectl.items("customresourcedefinitions")
        return {m["metadata"]["name"]: m["metadata"]["uid"] for m in found if m["metadata"]["name"] in KINDS}

    def uids() -> set[str]:
        return {m["metadata"]["uid"] for m in kubectl.items("slm", "-A")}

    platform.apply(waiting("waits", SERVED))
    before = crds(), uids()
    second.upgrade("--set", "crds.install=true", "--take-ownership")
    kept = _of(
        list(yaml.safe_load_all(kubectl.helm("get", "manifest", RELEASE, "-n", HOME))), "CustomResourceDefinition"
    )
    assert {crd["metadata"]["name"] for crd in kept} == KINDS
    assert all(crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for crd in kept), "not uninstalled"
    kubectl.helm("uninstall", RELEASE, "-n", HOME, "--wait")
    wait_for("its last pod to go", lambda: not second.pods() and _everything(platform) == second.before, 60,
             lambda: str(_everything(platform) - second.before))  # fmt: skip
    assert (crds(), uids()) == before

"""Who a run's pods may connect to: the list in the run, and the policy around it."""

from typing import Any

import pytest
from pydantic import ValidationError

from slmops import contract
from slmops.api.egress import NODE, EgressPeer
from slmops.api.finetune import FineTune
from slmops.api.run import RunSpec
from slmops.plan.finetune import plan_finetune
from slmops.plan.network import peers, policy, service_namespace
from slmops.settings import Egress, Settings
from slmops.state import JOB_NAME_LABEL, Manifest, Observed, Plan
from tests.unit.builders import finetune, live

DENY = Settings(egress=Egress(default="Deny"))
FOUR, SIX = ([text for text in NODE if (":" in text) == six] for six in (False, True))


def run(train: str, base: str = "oci://r.example/slm/base:v1", **more: Any) -> contract.TrainRun:
    data = contract.Data(source=contract.Source(uri=train, **more), format=contract.ExampleFormat.MESSAGES)
    return contract.TrainRun(
        run="", base=contract.Source(uri=base), train=data, output=contract.Sink(repository="out.example:5000/slm/x")
    )


def named(asked: contract.Run, settings: Settings = DENY, **spec: Any) -> list[str]:
    found = peers(asked, RunSpec.model_validate(spec), settings)
    assert found is not None
    return [f"{peer.host}:{peer.port}" + (" listed" if peer.listed else "") for peer in found]


OUT = ["r.example:443", "out.example:5000"]


@pytest.mark.parametrize(
    ("uri", "more", "host"),
    [
        ("https://data.example/x.jsonl", {}, ["data.example:443"]),
        ("https://data.example:8443/x.jsonl", {}, ["data.example:8443"]),
        ("http://data.example/x", {}, ["data.example:80"]),
        ("s3://bucket/x", {}, ["*.amazonaws.com:443"]),
        ("s3://bucket/x", {"endpoint": "http://minio.store.svc:9000"}, ["minio.store.svc:9000"]),
        ("hf://org/name", {}, ["huggingface.co:443", "*.huggingface.co:443", "*.hf.co:443"]),
        ("pvc://claim/x", {}, []),
        ("oci://out.example:5000/data", {}, []),
    ],
)
def test_whom_the_spec_names_is_on_the_list(uri: str, more: dict[str, str], host: list[str]) -> None:
    assert sorted(named(run(uri, **more))) == sorted([*OUT, *host])


def test_a_plain_registry_has_another_port() -> None:
    settings = DENY.model_copy(update={"plain_http_registries": ("r.example",)})
    assert named(run("pvc://c/x"), settings) == ["r.example:80", "out.example:5000"]


def test_a_teacher_and_servers_to_measure_are_named_by_their_url() -> None:
    data = contract.Data(source=contract.Source(uri="pvc://c/x"), format=contract.ExampleFormat.MESSAGES)
    endpoint = contract.Endpoint(url="http://teacher.edge-ai.svc:8080/v1", model="m")
    label = contract.LabelRun(run="", endpoint=endpoint, train=data, output=contract.Sink(repository="r.example/x"))
    assert named(label) == ["teacher.edge-ai.svc:8080", "r.example:443"]
    target = contract.Target(name="candidate", url="http://[fd00::5]:8080", model="m")
    bench = contract.BenchRun(run="", targets=(target,), data=data)
    assert named(bench) == ["fd00::5:8080"]


def test_what_the_spec_lists_comes_with_its_words() -> None:
    listed = [{"host": "cdn.example", "port": 8443}, {"cidr": "10.1.0.0/16"}]
    assert named(run("pvc://c/x"), Settings(), egress=listed) == [
        "cdn.example:8443 listed", "10.1.0.0/16:443 listed", *OUT,
    ]  # fmt: skip


def test_without_a_list_the_installation_decides() -> None:
    assert peers(run("pvc://c/x"), RunSpec(), Settings()) is None
    assert peers(run("pvc://c/x"), RunSpec(), DENY) is not None
    assert peers(run("pvc://c/x"), RunSpec(egress=[]), Settings()) is not None


# --- the policy


def rules(*allowed: contract.Peer, settings: Settings = DENY) -> list[Manifest]:
    meta = {"name": "j", "namespace": "ns"}
    labels = {"slmops.dev/kind": "FineTune", "slmops.dev/name": "f", "slmops.dev/role": "train"}
    made = policy("j", meta, labels, allowed, settings)
    assert made["spec"]["policyTypes"] == ["Egress"]
    assert made["spec"]["podSelector"] == {"matchLabels": {JOB_NAME_LABEL: "j"}}
    dns, together = made["spec"]["egress"][:2]
    assert dns == {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    assert together == {
        "to": [{"podSelector": {"matchLabels": {"slmops.dev/kind": "FineTune", "slmops.dev/name": "f"}}}]
    }
    return list(made["spec"]["egress"][2:])


def peer(host: str, port: int = 443, listed: bool = False) -> contract.Peer:
    return contract.Peer(host=host, port=port, listed=listed)


def tcp(port: int) -> list[Manifest]:
    return [{"port": port, "protocol": "TCP"}]


def test_nobody_is_nobody() -> None:
    assert rules() == []


def test_a_name_opens_its_port_to_public_addresses_and_not_to_ours() -> None:
    settings = Settings(egress=Egress(internal_ranges=("10.78.0.0/16", "fd00::/8")))
    world = [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.78.0.0/16", *FOUR]}},
             {"ipBlock": {"cidr": "::/0", "except": ["fd00::/8", *SIX]}}]  # fmt: skip
    assert rules(peer("a.example"), peer("b.example"), peer("*.c.example", 8443), settings=settings) == [
        {"to": world, "ports": tcp(443)}, {"to": world, "ports": tcp(8443)},
    ]  # fmt: skip


def test_where_all_is_ours_a_name_opens_nothing() -> None:
    four = Settings(egress=Egress(internal_ranges=("0.0.0.0/0",)))
    assert rules(peer("a.example"), settings=four) == [
        {"to": [{"ipBlock": {"cidr": "::/0", "except": SIX}}], "ports": tcp(443)}
    ]
    assert rules(peer("a.example"), settings=Settings(egress=Egress(internal_ranges=("0.0.0.0/0", "::/0")))) == []


def test_an_address_is_itself_and_a_range_never_holds_the_nodes_link() -> None:
    assert rules(peer("10.77.0.1", 5000)) == [{"to": [{"ipBlock": {"cidr": "10.77.0.1/32"}}], "ports": tcp(5000)}]
    for listed in (False, True):
        for address in (
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "100.100.100.200",
            "fe80::1",
        ):
            assert rules(peer(address, 80, listed=listed)) == []
        assert rules(peer("169.254.0.0/17", listed=listed)) == []
    assert rules(peer("10.0.0.7/8", listed=True)) == [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": tcp(443)}]
    assert rules(peer("0.0.0.0/0", listed=True)) == [
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": FOUR}}], "ports": tcp(443)}
    ]


@pytest.mark.parametrize(
    ("host", "namespace"),
    [("teacher", "own"), ("teacher.edge-ai.svc", "edge-ai"), ("teacher.edge-ai.svc.cluster.local", "edge-ai"),
     ("api.example.com", None), ("example.com", None), ("a.svc", None), ("x.y.svc.example.com", None)],
)  # fmt: skip
def test_a_service_is_its_namespace(host: str, namespace: str | None) -> None:
    assert service_namespace(host, "own") == namespace


def test_a_services_port_is_not_its_pods() -> None:
    assert rules(peer("teacher.edge-ai.svc", 80)) == [
        {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "edge-ai"}}}]}
    ]


# --- in a plan


def plan(resource: FineTune, settings: Settings = DENY, observed: Observed | None = None) -> Plan:
    return plan_finetune(resource, observed or Observed(), settings)


def of_kind(made: Plan, kind: str) -> list[Manifest]:
    return [item for item in made.apply if item["kind"] == kind]


def test_the_policy_is_there_before_the_pod_and_changes_no_name() -> None:
    kinds = [item["kind"] for item in plan(finetune()).apply]
    assert kinds == ["NetworkPolicy", "ConfigMap", "Job"]
    assert plan(finetune()).steps == plan(finetune(), Settings()).steps, "what was trained is not trained again"
    assert [item["kind"] for item in plan(finetune(), Settings()).apply] == ["ConfigMap", "Job"]


def test_run_and_policy_have_the_same_list() -> None:
    listed = finetune({"run": {"egress": [{"cidr": "10.1.0.0/16", "port": 9000}]}})
    made = plan(listed, Settings())
    configured = contract.TrainRun.model_validate_json(of_kind(made, "ConfigMap")[0]["data"]["run.json"])
    assert configured.egress is not None
    assert contract.Peer(host="10.1.0.0/16", port=9000, listed=True) in configured.egress
    assert {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": tcp(9000)} in of_kind(made, "NetworkPolicy")[0][
        "spec"
    ]["egress"]


def test_another_list_is_another_job() -> None:
    """The list is in the run's configuration, which no running Job changes."""
    assert plan(finetune({"run": {"egress": []}})).steps != plan(finetune()).steps


@pytest.mark.parametrize(
    "cidr",
    ["169.254.169.254/32", "169.254.0.0/16", "fe80::1/128", "10.0.0.0", "x/8", "10.0.0.0/33", "64:ff9b::a9fe:a9fe/128",
     "64:ff9b::a9fe:0/120", "2002:a9fe:a9fe::/48", "::ffff:169.254.169.254/128", "::ffff:a9fe:0/112", "168.63.129.16/32",
     "fd20:ce::254/128"],
)  # fmt: skip
def test_no_list_has_the_nodes_link_or_nonsense(cidr: str) -> None:
    with pytest.raises(ValidationError):
        EgressPeer.model_validate({"cidr": cidr})


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "169.254.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "2852039166", "0xa9fea9fe",
     "169.16689662", "0251.0376.0251.0376", "169.254.169.0xfe", "*.169.254", "1.2.3.4.5"],
)  # fmt: skip
def test_no_list_has_the_nodes_link_as_a_host(host: str) -> None:
    with pytest.raises(ValidationError):
        EgressPeer.model_validate({"host": host, "port": 80})


@pytest.mark.parametrize("peer", [{"host": "10.0.0.7"}, {"host": "4.example"}, {"host": "a4"}, {"cidr": "0.0.0.0/0"},
                                  {"cidr": "64:ff9b::/96"}, {"cidr": "::/0"}, {"host": "0x.example"}])  # fmt: skip
def test_others_can_be_listed(peer: dict[str, str]) -> None:
    assert EgressPeer.model_validate(peer).dump() == {**peer, "port": 443}


def test_a_policy_that_is_not_wanted_any_more_goes() -> None:
    made = plan(finetune())
    fence = of_kind(made, "NetworkPolicy")[0]
    observed = Observed(children=tuple(live(item) for item in made.apply))
    assert [c["kind"] for c in plan(finetune(), Settings(), observed).remove] == ["NetworkPolicy"]
    assert plan(finetune(), DENY, observed).remove == ()
    assert of_kind(plan(finetune(), DENY, observed), "NetworkPolicy") == [fence], "mended where somebody changed it"

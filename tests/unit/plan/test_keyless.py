"""Signing and verifying without a key: what the pods get for it, whom they may connect to, and what the status says."""

import json
from typing import Any

import pytest

from slmops import contract
from slmops.api.run import RunSpec
from slmops.api.signing import FULCIO, REKOR, Identity, Keyless
from slmops.contract import Report
from slmops.plan.network import peers
from slmops.plan.sources import Sources
from slmops.settings import Egress, Settings
from slmops.state import Manifest, Observed
from slmops.status.signing import by
from tests.unit.builders import OUTPUT, facts, finetune, report, told
from tests.unit.edgeworld import World
from tests.unit.fleet_builders import deployment, image
from tests.unit.plan.test_signing import after, configuration, job_of, status_of
from tests.unit.plan.test_verification import configuration as verifying
from tests.unit.plan.test_verification import mounted

ACCOUNT = "https://kubernetes.io/namespaces/edge-ai/serviceaccounts/default"
ISSUER = "https://kubernetes.example"
DONE = Report(outcome="Succeeded", signer=f"{ACCOUNT} ({ISSUER})")
OWN = {"fulcio": "https://fulcio.lab.svc:8443", "rekor": "https://rekor.lab.svc", "trustedRoot": {"configMap": "lab"}}
WHO = {"identity": ACCOUNT, "issuer": ISSUER}
DENY = Settings(egress=Egress(default="Deny"))


def signing(**keyless: Any) -> tuple[Any, Observed]:
    """A FineTune that signs without a key, once all of it is done."""
    resource = finetune({"output": OUTPUT | {"sign": {"keyless": keyless}}})
    return resource, after(resource, {"train": report("model"), "sign": DONE})


def pod_of(observed: Observed) -> Manifest:
    found: Manifest = job_of(observed)["spec"]["template"]["spec"]
    return found


def test_the_pod_that_signs_has_a_token_that_only_fulcio_takes() -> None:
    _, observed = signing()
    pod, run = pod_of(observed), configuration(observed)
    assert pod["automountServiceAccountToken"] is False, "none of the API server's"
    assert pod["serviceAccountName"] == "default"
    (volume,) = [found for found in pod["volumes"] if found["name"] == "identity"]
    (source,) = volume["projected"]["sources"]
    assert source == {"serviceAccountToken": {"audience": "sigstore", "expirationSeconds": 600, "path": "token"}}
    (mount,) = [found for found in pod["containers"][0]["volumeMounts"] if found["name"] == "identity"]
    assert mount["readOnly"] is True
    assert run is not None
    assert run["key"] is None
    assert run["keyless"] == {
        "token": f"{mount['mountPath']}/token",
        "audience": "sigstore",
        "fulcio": {"url": FULCIO},
        "rekor": {"url": REKOR},
        "root": {"path": None, "url": contract.TUF},
    }


def test_no_other_pod_has_an_identity() -> None:
    _, observed = signing(serviceAccountName="signer")
    others = [job for job in observed.of_kind("Job") if job is not job_of(observed)]
    assert others
    assert "serviceAccount" not in json.dumps(others).replace("automountServiceAccountToken", "")


def test_an_instance_of_ones_own_comes_with_its_root() -> None:
    _, observed = signing(**OWN, audience="sigstore-lab", serviceAccountName="signer")
    pod, run = pod_of(observed), configuration(observed)
    assert run is not None
    assert pod["serviceAccountName"] == "signer"
    (volume,) = [found for found in pod["volumes"] if found["name"].startswith("root-")]
    assert volume["configMap"] == {
        "name": "lab",
        "items": [{"key": "trusted_root.json", "path": "trusted_root.json"}],
    }
    assert run["keyless"]["root"]["path"].endswith(f"/{volume['name']}/trusted_root.json")
    assert run["keyless"]["root"]["url"] is None
    assert run["keyless"]["fulcio"] == {"url": OWN["fulcio"]}


def test_another_account_is_another_job_and_a_key_is_signed_with_as_before() -> None:
    names = {job_of(signing(**wish)[1])["metadata"]["name"] for wish in ({}, {"serviceAccountName": "x"}, OWN)}
    assert len(names) == 3
    resource = finetune({"output": OUTPUT | {"sign": {"secret": "cosign"}}})
    job = job_of(after(resource, {"train": report("model"), "sign": DONE}))
    assert "serviceAccountName" not in job["spec"]["template"]["spec"]


def test_the_status_says_who_has_signed() -> None:
    resource, observed = signing()
    status = status_of(resource, observed)
    assert facts(status)["Signed"] == ("True", "Signed")
    assert told(status, "Signed") == f"by {ACCOUNT} ({ISSUER})"
    assert by(f"sha256:{'0' * 64}") == f"with the key sha256:{'0' * 64}"


@pytest.mark.parametrize("signer", ["sha256:12", "somebody", "a (b) c\n", f"{'a' * 600} (b)", "a b (c)"])
def test_a_signer_that_a_report_could_not_say_is_none(signer: str) -> None:
    with pytest.raises(ValueError, match="signer"):
        Report(outcome="Succeeded", signer=signer)


def test_a_refusal_of_the_identity_is_told_with_its_remedy_and_costs_no_training() -> None:
    resource = finetune({"output": OUTPUT | {"sign": {"keyless": {}}}})
    failed = Report(outcome="Failed", reason=contract.Reason.IDENTITY_REFUSED, message="Fulcio answered 401")
    observed = after(resource, {"train": report("model"), "sign": failed.model_dump_json()})
    status = status_of(resource, observed)
    assert facts(status)["Published"] == ("True", "Pushed")
    assert facts(status)["Signed"] == ("False", "IdentityRefused")
    assert "serviceAccountName" in told(status, "Signed")


@pytest.mark.parametrize("audience", ["https://kubernetes.default.svc", "sts.amazonaws.com", "api://AzureADTokenExchange",
                                      "sigstore.", "sigstores", "vault", ""])  # fmt: skip
def test_a_token_that_another_server_takes_cannot_be_asked_for(audience: str) -> None:
    with pytest.raises(ValueError, match="should match pattern"):
        Keyless.model_validate({"audience": audience})


# --- whom it may connect to


def named(run: contract.Run) -> list[str]:
    found = peers(run, RunSpec(), DENY)
    assert found is not None
    return [f"{peer.host}:{peer.port}" for peer in found]


def sign_run(**keyless: Any) -> contract.SignRun:
    made = Sources(Observed())._identity(Keyless.model_validate(keyless))
    return contract.SignRun(run="", artifacts={}, keyless=made, output=contract.Sink(repository="r.example/x"))


def test_who_signs_may_reach_fulcio_rekor_and_what_says_whom_to_trust() -> None:
    public = ["fulcio.sigstore.dev:443", "rekor.sigstore.dev:443", "tuf-repo-cdn.sigstore.dev:443"]
    assert sorted(named(sign_run())) == sorted([*public, "r.example:443"])
    assert sorted(named(sign_run(**OWN))) == ["fulcio.lab.svc:8443", "r.example:443", "rekor.lab.svc:443"]


@pytest.mark.parametrize(("root", "more"), [({}, ["tuf-repo-cdn.sigstore.dev:443"]),
                                            ({"trustedRoot": {"configMap": "lab"}}, [])])  # fmt: skip
def test_who_verifies_reaches_neither_and_asks_whom_to_trust_unless_it_is_told(
    root: dict[str, Any], more: list[str]
) -> None:
    wanted = Identity.model_validate(WHO | root)
    identity = contract.Identity(identity=ACCOUNT, issuer=ISSUER, root=Sources(Observed())._root(wanted.trusted_root))
    source = contract.Source(uri="oci://r.example/x:v1", verify=contract.Verify(identity=identity))
    assert sorted(named(contract.VerifyRun(run="", images={"a": source}))) == ["r.example:443", *more]


# --- EdgeDeployments


def test_a_rollout_looks_for_an_identity_and_mounts_no_key() -> None:
    verify = {"keyless": WHO | {"trustedRoot": {"configMap": "lab", "key": "root.json"}}, "provenance": True}
    job, run = verifying(deployment(model={"image": image("a"), "verify": verify}))
    (source,) = run["images"].values()
    assert source["verify"]["key"] is None
    assert source["verify"]["provenance"] is True
    found = source["verify"]["identity"]
    assert (found["identity"], found["issuer"]) == (ACCOUNT, ISSUER)
    names = [name for name in mounted(job) if name.startswith(("key-", "pub-", "root-"))]
    assert len(names) == 1
    assert found["root"]["path"].endswith(f"/{names[0]}/root.json")
    assert "serviceAccountName" not in job["spec"]["template"]["spec"]


@pytest.mark.parametrize("change", [{"identity": "a@farm.example"}, {"issuer": "https://other.example"},
                                    {"trustedRoot": {"configMap": "lab"}}])  # fmt: skip
def test_another_identity_is_another_look(change: dict[str, Any]) -> None:
    names = {
        verifying(deployment(model={"image": image("a"), "verify": {"keyless": WHO | more}}))[0]["metadata"]["name"]
        for more in ({}, change)
    }
    assert len(names) == 2


def test_the_evidence_of_a_rollout_is_signed_by_an_identity_too() -> None:
    world = World({"n1": "small"}, evidence={"sign": {"keyless": {"serviceAccountName": "signer"}}})
    while not (found := [job for job in world.of_kind("Job") if "evidence" in job["metadata"]["name"]]):
        world.turn()
    pod = found[0]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "signer"
    assert "identity" in {volume["name"] for volume in pod["volumes"]}

"""Signing as a service account on the cluster: the kubelet's token, an instance of Sigstore beside it, and cosign."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from demo.steps import Manifest, condition
from tests.cluster import Cluster
from tests.cluster.binaries import COSIGN, build
from tests.e2e.platform import NAMESPACE, REFUSING, Platform
from tests.e2e.test_signing import Cosign
from tests.e2e.test_trust import dataset, finetune, told
from tests.unit.images.fakesigstore import FakeSigstore, account

pytestmark = pytest.mark.cluster
SECONDS = 600
HOST, PORT = REFUSING.split(":")
ROOT = {"configMap": "sigstore-lab"}
INSTANCE = {"fulcio": f"https://{REFUSING}", "rekor": f"https://{REFUSING}", "trustedRoot": ROOT}
SIGNER = account("signer", NAMESPACE)


@pytest.fixture(scope="module")
def instance(platform: Platform, local: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeSigstore]:
    """It knows the keys of the cluster's issuer; who it is to be trusted by is in a ConfigMap."""
    folder = tmp_path_factory.mktemp("sigstore")
    keys = json.loads(platform.kubectl("get", "--raw", "/openid/v1/jwks"))
    with FakeSigstore(folder, (HOST, int(PORT))) as found:
        found.known = [key.key for key in jwt.PyJWKSet.from_dict(keys).keys]
        root = Path(str(found.root().path)).read_text()
        meta = {"namespace": NAMESPACE}
        platform.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta | {"name": ROOT["configMap"]},
             "data": {"trusted_root.json": root}},
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta | {"name": "signer"}},
        )  # fmt: skip
        yield found


@pytest.fixture(scope="module")
def cosign(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Cosign:
    """Without a key."""
    if shutil.which("cosign") is None:
        build(COSIGN)
    return Cosign(platform, tmp_path_factory.mktemp("cosign"))


@pytest.fixture(scope="module")
def lessons(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    return dataset(platform, tmp_path_factory.mktemp("lessons"))


@pytest.fixture(scope="module")
def signed(platform: Platform, instance: FakeSigstore, lessons: str) -> Manifest:
    """A FineTune that signs as the service account ``signer``, with a list of whom it may connect to."""
    sign = {"keyless": INSTANCE | {"serviceAccountName": "signer"}}
    output = {"repository": f"{platform.registry}/slm/keyless", "sign": sign}
    platform.apply(finetune(platform, "keyless", lessons, output=output, run={"egress": []}))
    return platform.wait("finetune", "keyless", "Succeeded", "True", SECONDS)


def issuer(platform: Platform) -> str:
    return str(json.loads(platform.kubectl("get", "--raw", "/.well-known/openid-configuration"))["issuer"])


def test_a_service_account_signs_and_cosign_verifies_it(
    platform: Platform, instance: FakeSigstore, cosign: Cosign, signed: Manifest
) -> None:
    found = condition(signed, "Signed")
    assert (found["status"], found["reason"]) == ("True", "Signed")
    assert found["message"] == f"by {SIGNER} ({issuer(platform)})"
    assert instance.entries
    reference = signed["status"]["artifact"]["reference"]
    who = ("--certificate-identity", SIGNER, "--certificate-oidc-issuer", issuer(platform))
    root = ("--trusted-root", str(instance.root().path))
    assert json.loads(cosign("verify", *root, *who, reference))
    assert cosign("verify-attestation", *root, *who, "--type", "slsaprovenance1", reference)


def test_the_token_is_in_the_pod_that_signs_alone_and_in_nothing_that_is_written(
    platform: Platform, instance: FakeSigstore, signed: Manifest
) -> None:
    jobs = platform.kubectl.items("jobs", "-l", "slmops.dev/name=keyless,slmops.dev/kind=FineTune")
    pods = {job["metadata"]["labels"]["slmops.dev/role"]: job["spec"]["template"]["spec"] for job in jobs}
    assert {role for role, pod in pods.items() if "serviceAccountToken" in json.dumps(pod)} == {"sign"}
    assert not any(pod["automountServiceAccountToken"] for pod in pods.values())
    written = platform.kubectl("get", "slm,events,configmaps,jobs,pods", "-n", NAMESPACE, "-o", "yaml")
    logs = "".join(platform.kubectl("logs", "-n", NAMESPACE, f"job/{job['metadata']['name']}") for job in jobs)
    assert instance.shown
    assert not any(token in written + logs for token in instance.shown)


def test_another_account_is_refused_by_who_trains_on_it_and_the_right_one_goes_on(
    platform: Platform, signed: Manifest, lessons: str
) -> None:
    def base(name: str) -> Manifest:
        who = {"identity": account(name, NAMESPACE), "issuer": issuer(platform), "trustedRoot": ROOT}
        uri = f"oci://{signed['status']['artifact']['reference']}"
        return {"uri": uri, "verify": {"keyless": who, "provenance": True}}

    platform.apply(finetune(platform, "keyless-next", lessons, base=base("default")))
    told(platform, "keyless-next", "SignatureInvalid", f"is not signed by {account('default', NAMESPACE)}",
         f"found: {SIGNER} ({issuer(platform)})", "identity in verify")  # fmt: skip
    platform.apply(finetune(platform, "keyless-next", lessons, base=base("signer")))
    done = platform.wait("finetune", "keyless-next", "Succeeded", "True", SECONDS)
    assert done["status"]["verified"] == {"base": f"{SIGNER} ({issuer(platform)})"}


def test_a_token_that_the_instance_does_not_know_is_told_and_costs_no_training(
    platform: Platform, instance: FakeSigstore, signed: Manifest, lessons: str
) -> None:
    known, instance.known = instance.known, []
    output = {"repository": f"{platform.registry}/slm/keyless", "sign": {"keyless": INSTANCE}}
    platform.apply(finetune(platform, "keyless-unknown", lessons, output=output))
    told(platform, "keyless-unknown", "IdentityRefused", "answered 401", "serviceAccountName")
    instance.known = known
    platform.annotate("finetune", "keyless-unknown", retry="1")
    done = platform.wait("finetune", "keyless-unknown", "Succeeded", "True", SECONDS)
    assert condition(done, "Signed")["message"].startswith(f"by {account('default', NAMESPACE)}")

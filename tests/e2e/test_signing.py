"""Signatures on the cluster, with cosign on the other side: it makes keys, signs what we fetch, verifies what we sign."""

import base64
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo.assets import records
from demo.steps import Manifest, condition, wait_for
from demo.task import IRRIGATION
from slmkit import trust
from slmkit.data import write_messages
from slmkit.registry import Registry
from slmops import contract
from tests.cluster.binaries import COSIGN, binary, build
from tests.e2e.platform import NAMESPACE, Platform

pytestmark = pytest.mark.cluster
SECONDS = 600
PASSWORD = "canary-of-cosign"
STRANGE = {"quantizedModel": {"name": "signed"}, "verify": {"configMap": "stranger", "provenance": True}}
FARMS = [{"name": "farms", "selector": {"matchLabels": {"pool": "farms"}}}]


@dataclass
class Cosign:
    """The program, against the cluster and its registry."""

    platform: Platform
    folder: Path

    def __call__(self, *arguments: str, plain: bool = True) -> str:
        """Run it; its output. Nothing but the cluster is asked: no log, no root of trust."""
        insecure = ("--allow-insecure-registry", "--allow-http-registry") if self.platform.cluster.plain_http else ()
        known = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "COSIGN_PASSWORD": PASSWORD}
        known |= {"KUBECONFIG": str(self.platform.cluster.kubeconfig)}
        done = subprocess.run([self.program, *arguments, *(insecure if plain else ())], cwd=self.folder, env=known,
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def program(self) -> str:
        """The user's own, or the one that is built here."""
        return shutil.which("cosign") or str(binary("cosign"))

    def verify(self, reference: str) -> list[Any]:
        """What it finds signed with the key."""
        return list(json.loads(self("verify", "--key", "cosign.pub", "--insecure-ignore-tlog=true", reference)))

    def attested(self, reference: str, kind: str) -> str:
        """The attestations of a kind."""
        return self(
            "verify-attestation", "--key", "cosign.pub", "--insecure-ignore-tlog=true", "--type", kind, reference
        )

    def sign(self, reference: str) -> None:
        """Sign as somebody who makes models elsewhere does."""
        self("sign", "--yes", "--key", f"k8s://{NAMESPACE}/cosign", "--tlog-upload=false", "--use-signing-config=false",
             reference)  # fmt: skip


@pytest.fixture(scope="module")
def cosign(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Cosign:
    """With a key pair in the Secret ``cosign``, and the public key of somebody else in the ConfigMap ``stranger``."""
    if shutil.which("cosign") is None:
        build(COSIGN)
    found = Cosign(platform, tmp_path_factory.mktemp("cosign"))
    found("generate-key-pair", "--output-key-prefix=stranger", plain=False)
    found("generate-key-pair", f"k8s://{NAMESPACE}/cosign", plain=False)
    public = (found.folder / "stranger.pub").read_text()
    platform.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stranger", "namespace": NAMESPACE},
                    "data": {"cosign.pub": public}})  # fmt: skip
    return found


def client(platform: Platform) -> Registry:
    return Registry(contract.Registry(plain_http=platform.cluster.plain_http))


def resource(kind: str, name: str, **spec: Any) -> Manifest:
    return {"apiVersion": "slmops.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec}  # fmt: skip


@pytest.fixture(scope="module")
def base(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The teacher with another digest each time, which nobody has signed before."""
    folder, registry = tmp_path_factory.mktemp("teacher"), client(platform)
    registry.pull(contract.Source(uri=f"oci://{platform.registry}/slm/teacher:v1"), folder)
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    sink = contract.Sink(repository=f"{platform.registry}/slm/e2e-unsigned")
    told = {"slmops.dev/test": platform.begun.isoformat()}
    return registry.push_artifact(sink, files, contract.MODEL_TYPE, told).reference


@pytest.fixture(scope="module")
def signed(platform: Platform, cosign: Cosign, base: str) -> Manifest:
    """A QuantizedModel of what cosign has signed, that signs what it makes."""
    platform.apply(
        resource(
            "QuantizedModel", "signed", model={"uri": f"oci://{base}", "verify": {"secret": "cosign"}},
            run={"nodeSelector": {"pool": "gpu"}, "retries": 0},
            output={"repository": f"{platform.registry}/slm/signed", "sign": {"secret": "cosign"}},
        )
    )  # fmt: skip
    refused = condition(platform.wait("quantizedmodel", "signed", "Succeeded", "False", SECONDS), "Succeeded")
    assert refused["reason"] == "SignatureMissing", refused
    assert f"{base} is not signed" in refused["message"]
    cosign.sign(base)
    platform.annotate("quantizedmodel", "signed", retry="1")
    platform.apply(resource("EdgeDeployment", "signed", model=STRANGE, pools=FARMS))  # before there is what to look at
    return platform.wait("quantizedmodel", "signed", "Succeeded", "True", SECONDS)


def image(signed: Manifest) -> str:
    return str(signed["status"]["variants"][0]["reference"])


def test_what_is_published_is_signed_and_cosign_verifies_it(
    platform: Platform, cosign: Cosign, signed: Manifest
) -> None:
    found = condition(signed, "Signed")
    assert (found["status"], found["reason"]) == ("True", "Signed")
    der = subprocess.run(["openssl", "pkey", "-pubin", "-in", cosign.folder / "cosign.pub", "-outform", "DER"],
                         check=True, capture_output=True).stdout  # fmt: skip
    digest = subprocess.run(["sha256sum"], input=der, check=True, capture_output=True).stdout.split()[0].decode()
    assert found["message"] == f"with the key sha256:{digest}"
    assert signed["status"]["verified"] == {"model": f"sha256:{digest}"}
    said = {claim["critical"]["type"] for claim in cosign.verify(image(signed))}
    assert trust.SIGNED in said
    assert "slmops.dev/build-types/quantize" in _payloads(cosign.attested(image(signed), "slsaprovenance1"))
    assert "CycloneDX" in _payloads(cosign.attested(image(signed), "cyclonedx"))


def _payloads(lines: str) -> str:
    return "".join(base64.b64decode(json.loads(line)["payload"]).decode() for line in lines.splitlines() if line)


def test_another_key_is_refused_by_who_trains_on_it(
    platform: Platform, signed: Manifest, base: str, tmp_path: Path
) -> None:
    path = tmp_path / "train.jsonl"
    write_messages(path, records((IRRIGATION,), 4, 40))
    sink = contract.Sink(repository=f"{platform.registry}/slm/data/e2e-signing")
    lessons = client(platform).push_artifact(sink, {path.name: path}, contract.DATASET_TYPE, {})
    model = {"uri": f"oci://{base}", "verify": {"configMap": "stranger"}}
    data = {"train": {"uri": f"oci://{lessons.reference}"}, "validationSplit": 0.2}
    platform.apply(
        resource(
            "FineTune", "stranger", base=model, data=data, run={"nodeSelector": {"pool": "gpu"}, "retries": 0},
            output={"repository": f"{platform.registry}/slm/stranger"},
        )
    )  # fmt: skip
    found = condition(platform.wait("finetune", "stranger", "Succeeded", "False", SECONDS), "Succeeded")
    assert found["reason"] == "SignatureInvalid", found
    assert "is not signed with the key sha256:" in found["message"]
    assert "name its publisher's public key or identity in verify" in found["message"]


def test_no_node_pulls_what_is_signed_with_another_key_and_the_right_one_goes_on(
    platform: Platform, signed: Manifest
) -> None:
    refused = platform.wait("edgedeployment", "signed", "Signed", "False", SECONDS)
    assert condition(refused, "InputsResolved")["reason"] == "SignatureInvalid"
    assert condition(refused, "Promoted")["status"] != "True"
    mine = ("-l", "slmops.dev/name=signed,slmops.dev/kind=EdgeDeployment")
    roles = {job["metadata"]["labels"]["slmops.dev/role"] for job in platform.kubectl.items("jobs", *mine)}
    assert roles == {"verify"}
    assert platform.kubectl.items("daemonsets", *mine) == []
    platform.patch("edgedeployment", "signed", {"model": {"verify": {"configMap": None, "secret": "cosign"}}})
    done = platform.wait("edgedeployment", "signed", "Ready", "True", SECONDS)
    assert condition(done, "Signed")["reason"] == "Verified"
    platform.kubectl("delete", "edgedeployment", "signed", "-n", NAMESPACE)
    wait_for("its servers to go", lambda: platform.kubectl.items("pods", *mine) == [], 90)


def test_the_key_is_in_the_pod_that_signs_and_its_password_nowhere_else(platform: Platform, signed: Manifest) -> None:
    jobs = platform.kubectl.items("jobs", "-l", "slmops.dev/name=signed,slmops.dev/kind=QuantizedModel")
    holding = [job for job in jobs if "cosign.key" in json.dumps(job["spec"])]
    assert [job["metadata"]["labels"]["slmops.dev/role"] for job in holding] == ["sign"]
    assert len(jobs) == 2
    written = platform.kubectl("get", "slm,events,configmaps,jobs,pods", "-n", NAMESPACE, "-o", "yaml")
    logs = "".join(platform.kubectl("logs", "-n", NAMESPACE, f"job/{job['metadata']['name']}") for job in jobs)
    assert PASSWORD not in written + logs
    assert "PRIVATE KEY" not in written + logs

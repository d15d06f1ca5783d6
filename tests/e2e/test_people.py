"""People and a rollout: who may let it go on, and what it does when they say so."""

import json
from collections.abc import Callable, Iterator, Sequence

import pytest

from demo.steps import Manifest, wait_for
from slmops.cli.people import Refused, main
from tests.e2e.chain import Seen
from tests.e2e.platform import NAMESPACE, Platform, deployment

pytestmark = pytest.mark.cluster
NAME = "asking"
WAVES = [{"name": "canary", "nodes": 1}, {"name": "rest", "nodes": "100%", "approval": "Required"}]
EDITOR = {
    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "editor", "namespace": NAMESPACE},
    "rules": [{"apiGroups": ["slmops.dev"], "resources": ["edgedeployments"], "verbs": ["get", "create", "patch"]}],
}  # fmt: skip


def binding(name: str, kind: str, role: str, user: str) -> Manifest:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def people(platform: Platform) -> Iterator[Callable[..., int]]:
    """The plugin as two users have it: both may change EdgeDeployments, and ada may approve."""
    platform.apply(
        EDITOR,
        *(binding(f"editor-{user}", "Role", "editor", user) for user in ("ada", "bob")),
        binding("approver-ada", "ClusterRole", "slmops-approver", "ada"),
    )

    def slm(*arguments: str, user: str) -> int:
        def kubectl(command: Sequence[str]) -> str:
            try:
                return platform.kubectl(*command, "-n", NAMESPACE, "--as", user)
            except RuntimeError as error:
                raise Refused(str(error)) from None

        return main(arguments, kubectl)

    yield slm
    platform.kubectl("delete", "edgedeployment", NAME, "-n", NAMESPACE, "--ignore-not-found")


def status(platform: Platform) -> Manifest:
    return platform.status("edgedeployment", NAME)


def phase(platform: Platform, wanted: str) -> None:
    wait_for(f"the rollout is {wanted}", lambda: status(platform).get("phase") == wanted, 180,
             lambda: platform.show("edgedeployment", NAME))  # fmt: skip


def deployed(image: str) -> Manifest:
    return deployment(NAME, image, 8090, {"waves": WAVES})


def images(chain: Seen) -> list[str]:
    return list(chain.images("farm-irrigation").values())


def test_a_wave_begins_when_somebody_who_may_approves_it(
    platform: Platform, chain: Seen, people: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = images(chain)
    platform.apply(deployed(first))
    phase(platform, "Waiting")
    asked = status(platform)["wave"]["approval"]
    assert asked == f"{status(platform)['candidate']['revision']}/rest"
    assert [pool["nodes"]["updated"] for pool in status(platform)["pools"]] == [2], "one node of each class"
    assert people("approve", NAME, user="bob") == 1
    assert "are for those who have the verb approve on the EdgeDeployment" in capsys.readouterr().err
    assert people("promote", NAME, user="bob") == 1
    platform.renewals(2)
    assert status(platform)["phase"] == "Waiting"
    assert people("approve", NAME, user="ada") == 0
    assert "wave rest of revision" in capsys.readouterr().out
    phase(platform, "Ready")
    assert status(platform)["lastOutcome"]["outcome"] == "Promoted"
    # Whoever may not approve may still change all the rest, and ask for the next one.
    platform.kubectl("patch", "edgedeployment", NAME, "-n", NAMESPACE, "--type=merge", "--as", "bob",
                     "-p", json.dumps({"spec": {"model": {"image": second}}}))  # fmt: skip
    phase(platform, "Waiting")


def test_what_is_aborted_goes_and_what_was_good_comes_back_at_once(
    platform: Platform, chain: Seen, people: Callable[..., int]
) -> None:
    first, _ = images(chain)
    before, given_up = status(platform)["stable"]["revision"], status(platform)["candidate"]["revision"]
    assert people("abort", NAME, user="bob") == 0
    phase(platform, "Degraded")
    assert status(platform)["lastOutcome"]["outcome"] == "Aborted"
    assert status(platform)["failed"] == [given_up]
    assert people("retry", NAME, user="bob") == 0
    phase(platform, "Waiting")
    assert people("promote", NAME, user="ada") == 0
    phase(platform, "Ready")
    assert [known["revision"] for known in status(platform)["history"]] == [before]
    platform.apply(deployed(first))
    wait_for("the first one is back", lambda: status(platform)["lastOutcome"]["outcome"] == "FastPromoted", 180,
             lambda: platform.show("edgedeployment", NAME))  # fmt: skip
    pods = platform.kubectl.items("pods", "-l", f"slmops.dev/name={NAME},slmops.dev/role=serve")
    assert {
        pod["spec"]["volumes"][0]["image"]["reference"] for pod in pods if "image" in pod["spec"]["volumes"][0]
    } <= {first}


def test_an_approval_that_stands_in_the_manifest_from_the_start_needs_the_verb_too(platform: Platform) -> None:
    manifest = deployed("registry.example/x@sha256:" + "0" * 64)
    manifest["metadata"] |= {"name": "forged", "annotations": {"slmops.dev/approve": "x/rest"}}
    with pytest.raises(RuntimeError, match="verb approve"):
        platform.kubectl("create", "-n", NAMESPACE, "--as", "bob", "-f", "-", stdin=json.dumps(manifest))
    platform.kubectl(
        "create", "-n", NAMESPACE, "--as", "ada", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest)
    )

"""Sources in the form that a run reads, the volumes that they need, and references that cannot be followed."""

from typing import Any

import pytest

from slmkit.data.records import CATEGORY, COLUMNS
from slmops.api.sources import AdapterSource, DataSource, ModelSource, Output, SecretKey, Verification
from slmops.plan.sources import Sources, Unresolved
from slmops.state import Manifest, Observed, Problem
from tests.unit.builders import DIGEST, artifact, reference, together


def sources(*references: Manifest) -> Sources:
    return Sources(together(Observed(), references=references))


def model(source: dict[str, Any], *references: Manifest) -> str:
    """The address that a model source leads to."""
    return sources(*references).model(ModelSource.model_validate(source), "spec.base").uri


def problem(source: dict[str, Any], *references: Manifest) -> Problem:
    """Why a model source leads nowhere."""
    with pytest.raises(Unresolved) as caught:
        model(source, *references)
    return caught.value.problem


def succeeded(status: str, reason: str = "Because") -> dict[str, Any]:
    return {"conditions": [{"type": "Succeeded", "status": status, "reason": reason}]}


STUDENT = {"distillation": {"name": "student"}}


# --- signatures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [{"uri": "oci://registry.example/slm/base:v1"}, STUDENT])
def test_what_has_to_be_signed_is_told_so_wherever_it_comes_from(source: dict[str, Any]) -> None:
    found = sources(reference("Distillation", "student"))
    verify = {"configMap": "publisher", "key": "theirs.pub", "provenance": True}
    told = found.model(ModelSource.model_validate(source | {"verify": verify}), "spec.base").verify
    assert told is not None
    assert told.provenance
    (mount,) = found.mounts
    assert told.key == f"{mount['mountPath']}/theirs.pub"
    (volume,) = found.volumes
    assert volume["configMap"] == {"name": "publisher", "items": [{"key": "theirs.pub", "path": "theirs.pub"}]}


def test_two_keys_of_one_secret_are_two_volumes_and_each_holds_its_own() -> None:
    found = sources()
    for key in ("one.pub", "two.pub", "one.pub"):
        found.verification(Verification(secret="keys", key=key))
    assert [volume["secret"]["items"][0]["key"] for volume in found.volumes] == ["one.pub", "two.pub"]
    assert len({mount["mountPath"] for mount in found.mounts}) == 2


def test_a_key_of_a_secret_with_a_long_name_has_a_volume_that_kubernetes_takes() -> None:
    found = sources()
    found.verification(Verification(secret="a" * 250 + ".b"))
    assert len(found.volumes[0]["name"]) <= 63


# --- references ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "kind"), [("distillation", "Distillation"), ("fineTune", "FineTune")])
def test_a_reference_becomes_the_digest_that_was_published(field: str, kind: str) -> None:
    published = reference(kind, "student")
    assert model({field: {"name": "student"}}, published) == f"oci://registry.example/slm/student@{DIGEST}"


def test_a_reference_is_read_with_the_secret_that_it_was_published_with() -> None:
    published = reference(
        "Distillation", "student", output={"repository": "r.example/x", "credentials": {"secret": "reg"}}
    )
    found = sources(published)
    source = found.model(ModelSource.model_validate(STUDENT), "spec.base")
    assert source.credentials is not None
    assert source.credentials.path == "/etc/slmops/credentials/reg/.dockerconfigjson"
    assert [volume["secret"]["secretName"] for volume in found.volumes] == ["reg"]


def test_a_reference_to_nothing_waits_and_names_what_is_missing() -> None:
    found = problem(STUDENT)
    assert (found.reason, found.waiting) == ("ReferenceNotFound", True)
    assert found.message == "spec.base: Distillation student does not exist in this namespace"


def test_a_resource_of_another_kind_and_the_same_name_is_not_meant() -> None:
    assert problem(STUDENT, reference("FineTune", "student")).reason == "ReferenceNotFound"


@pytest.mark.parametrize("status", [{"conditions": []}, {"conditions": None}, succeeded("Unknown")])
def test_a_reference_that_is_not_done_is_waited_for(status: dict[str, Any]) -> None:
    found = problem(STUDENT, reference("Distillation", "student", status))
    assert (found.reason, found.waiting) == ("ReferenceNotReady", True)


def test_a_reference_that_nobody_looked_at_yet_is_waited_for() -> None:
    new = reference("Distillation", "student")
    for status in ({}, None):
        assert problem(STUDENT, new | {"status": status}).reason == "ReferenceNotReady"


def test_success_of_an_older_generation_is_no_success() -> None:
    changed = reference("Distillation", "student")
    changed["metadata"]["generation"] = 2
    found = problem(STUDENT, changed)
    assert (found.reason, found.waiting) == ("ReferenceNotReady", True)


def test_a_reference_that_failed_is_told_with_its_reason() -> None:
    found = problem(STUDENT, reference("Distillation", "student", succeeded("False", "GateFailed")))
    assert (found.reason, found.waiting) == ("ReferenceFailed", True)
    assert "GateFailed" in found.message


@pytest.mark.parametrize("artifact", [None, {}, {"reference": ""}])
def test_a_reference_that_published_no_model_does_not_come_right_by_waiting(artifact: object) -> None:
    found = problem({"fineTune": {"name": "tuned"}}, reference("FineTune", "tuned", {"artifact": artifact}))
    assert (found.reason, found.waiting) == ("NothingToUse", False)
    assert "spec.merge: true" in found.message


# --- addresses -----------------------------------------------------------------------------------------------------


def test_an_address_stays_as_written_until_the_run_resolves_it() -> None:
    for uri in ("oci://registry.example/slm/base:v1", "https://example.com/x.jsonl", "hf://org/name@main"):
        assert model({"uri": uri}) == uri


@pytest.mark.parametrize(
    ("uri", "key", "path"),
    [
        ("oci://registry.example/slm/base:v1", None, ".dockerconfigjson"),
        ("https://example.com/x.jsonl", None, "token"),
        ("hf://org/name", None, "token"),
        ("hf://org/name", "api-key", "api-key"),
    ],
)
def test_which_key_of_a_secret_is_read(uri: str, key: str | None, path: str) -> None:
    found = sources().data(DataSource(uri=uri, credentials=SecretKey(secret="s", key=key))).source
    assert found.credentials is not None
    assert found.credentials.path == f"/etc/slmops/credentials/s/{path}"


@pytest.mark.parametrize("path", ["/2026/train.jsonl", "", f"/2026#sha256={'0' * 64}", f"#sha256={'0' * 64}"])
def test_a_claim_is_mounted_read_only(path: str) -> None:
    found = sources()
    found.data(DataSource(uri=f"pvc://farm-data{path}"))
    assert found.volumes == [
        {"name": "pvc-farm-data", "persistentVolumeClaim": {"claimName": "farm-data", "readOnly": True}}
    ]
    assert found.mounts == [{"name": "pvc-farm-data", "mountPath": "/mnt/pvc/farm-data", "readOnly": True}]


@pytest.mark.parametrize("claim", ["Farm", "farm_data", "farm:data", "a" * 254, "farm-", "x,y"])
def test_a_claim_that_cannot_exist_is_told_and_not_tried(claim: str) -> None:
    found = problem({"uri": f"pvc://{claim}/model"})
    assert (found.reason, found.waiting) == ("InvalidSource", False)
    assert claim in found.message


# --- volumes -------------------------------------------------------------------------------------------------------


def test_a_secret_that_several_sources_name_is_mounted_once() -> None:
    found = sources()
    output = Output(repository="registry.example/slm/out", credentials=SecretKey(secret="registry"))
    found.sink(output)
    found.own(artifact("dataset"), output)
    found.credentials(SecretKey(secret="registry", key="other"), "token")
    assert len(found.volumes) == len(found.mounts) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("a.b", "a-b"), ("a" * 70 + "x", "a" * 70 + "y"), ("a.b.c", "a.b-c"), ("x" * 253, "x" * 252)]
)
def test_secrets_with_names_alike_are_two_volumes(one: str, other: str) -> None:
    found = sources()
    paths = {found.credentials(SecretKey(secret=name), "token") for name in (one, other)}
    names = [volume["name"] for volume in found.volumes]
    assert len(paths) == len(set(names)) == 2
    assert all(len(name) <= 63 and "." not in name for name in names)
    assert [mount["name"] for mount in found.mounts] == names


def test_a_secret_and_a_claim_of_one_name_are_two_volumes() -> None:
    found = sources()
    found.data(DataSource(uri="pvc://barn/x", credentials=SecretKey(secret="barn")))
    assert len({volume["name"] for volume in found.volumes}) == 2


def test_no_credentials_no_volume() -> None:
    found = sources()
    assert found.data(DataSource(uri="https://example.com/x.jsonl")).source.credentials is None
    assert (found.volumes, found.mounts) == ([], [])


# --- data ------------------------------------------------------------------------------------------------------------


def test_data_are_read_as_the_spec_says() -> None:
    source = DataSource.model_validate(
        {"uri": "oci://r.example/slm/data:v1", "path": "a.csv", "format": "Classification",
         "columns": {"text": "body", "label": "kind"}, "labels": ["good", "bad"]}
    )  # fmt: skip
    found = sources().data(source)
    assert (found.format, found.path) == ("Classification", "a.csv")
    assert found.columns == {"text": "body", "label": "kind"}
    assert found.labels == ("good", "bad")


def test_every_field_of_a_record_can_have_another_name_in_the_files() -> None:
    for format, names in COLUMNS.items():
        columns = {name: f"my-{name}" for name in (*names, CATEGORY)}
        source = DataSource.model_validate({"uri": "oci://r.example/slm/data:v1", "format": format, "columns": columns})
        assert sources().data(source).columns == columns


def test_data_without_columns_and_labels_are_what_they_were_before() -> None:
    """No existing Job gets another name."""
    found = sources().data(DataSource(uri="oci://r.example/slm/data:v1"))
    assert found.model_dump(mode="json", exclude_defaults=True) == {
        "source": {"uri": "oci://r.example/slm/data:v1"},
        "format": "Messages",
    }


# --- adapters ------------------------------------------------------------------------------------------------------

ROWS = [{"name": name, "reference": f"registry.example/slm/{name}@{DIGEST}"} for name in ("irrigation", "greenhouse")]


def adapter(source: dict[str, Any], *references: Manifest) -> str:
    """The address that an adapter leads to."""
    wanted = AdapterSource.model_validate({"name": "x"} | source)
    return sources(*references).adapter(wanted, "spec.adapters[x]").uri


def tuned(status: dict[str, Any], **spec: Any) -> Manifest:
    return reference("FineTune", "tuned", {"artifact": None} | status, **spec)


def named(adapter: str | None = None) -> dict[str, Any]:
    return {"fineTune": {"name": "tuned"} | ({"adapter": adapter} if adapter else {})}


def test_the_adapter_of_a_fine_tune_is_taken_by_digest_and_need_not_be_merged() -> None:
    one = {"reference": f"registry.example/slm/tuned@{DIGEST}"}
    assert adapter(named(), tuned({"adapter": one})) == f"oci://{one['reference']}"
    assert adapter(named("greenhouse"), tuned({"adapters": ROWS})) == f"oci://registry.example/slm/greenhouse@{DIGEST}"


def test_an_adapter_may_have_an_address_and_has_to_be_signed_where_that_is_asked() -> None:
    uri = "oci://registry.example/slm/irrigation:v1"
    assert adapter({"uri": uri}) == uri
    found = sources()
    wanted = AdapterSource.model_validate(
        {"name": "x", "uri": uri, "credentials": {"secret": "login"}, "verify": {"configMap": "publisher"}}
    )
    told = found.adapter(wanted, "spec.adapters[x]")
    assert told.verify is not None
    assert told.credentials is not None
    assert len(found.volumes) == 2


@pytest.mark.parametrize(
    ("source", "manifest", "words"),
    [
        (
            named(),
            tuned({"adapters": ROWS}),
            "has several adapters: name one in fineTune.adapter (greenhouse, irrigation)",
        ),
        (named("barn"), tuned({"adapters": ROWS}), "has no adapter barn: it has greenhouse, irrigation"),
        (named("barn"), tuned({"adapter": {"reference": "x"}}), "has one adapter, which has no name: leave"),
        (named(), tuned({}, method="Full"), "published no adapter: only methods LoRA and QLoRA make one"),
        (named(), tuned({"adapter": {"reference": "x"}}, method="DoRA"), "has method DoRA, which rescales"),
        (named("irrigation"), tuned({"adapters": [{"name": "irrigation"}]}), "published no adapter"),
    ],
)
def test_a_fine_tune_that_has_not_the_adapter_does_not_come_right_by_waiting(
    source: dict[str, Any], manifest: Manifest, words: str
) -> None:
    with pytest.raises(Unresolved) as caught:
        adapter(source, manifest)
    found = caught.value.problem
    assert (found.reason, found.waiting) == ("NothingToUse", False)
    assert found.message.startswith(f"spec.adapters[x]: FineTune tuned {words}")


def test_a_fine_tune_that_is_not_done_is_waited_for_with_its_adapter() -> None:
    with pytest.raises(Unresolved) as caught:
        adapter(named("irrigation"), tuned(succeeded("Unknown") | {"adapters": ROWS}))
    assert (caught.value.problem.reason, caught.value.problem.waiting) == ("ReferenceNotReady", True)

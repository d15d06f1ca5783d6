"""What refers to something published is found from it, whether the registry keeps the list or the client has to."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from slmkit.run import RunFailed
from slmops.contract import Artifact, Reason, Sink
from tests.unit.images.fakeregistry import INDEX, Answer, FakeRegistry, sha256

TYPE = "application/vnd.example+json"


@pytest.fixture(params=[True, False], ids=["referrers API", "no referrers API"])
def registry(request: pytest.FixtureRequest) -> Iterator[FakeRegistry]:
    with FakeRegistry(referrers=request.param) as server:
        yield server


@pytest.fixture
def old() -> Iterator[FakeRegistry]:
    with FakeRegistry(referrers=False) as server:
        yield server


def sink(registry: FakeRegistry) -> Sink:
    return Sink(repository=f"{registry.host}/slm/model")


def push(registry: FakeRegistry, folder: Path, content: str = "x") -> Artifact:
    path = folder / "a.json"
    path.write_text(content)
    return registry.client().push_artifact(sink(registry), {"a.json": path}, "application/vnd.model", {})


def attach(registry: FakeRegistry, subject: Artifact, content: bytes, type: str = TYPE) -> Artifact:
    return registry.client().attach(sink(registry), subject, type, content, {"k": "v"})


def digest(made: Artifact) -> str:
    return made.reference.partition("@")[2]


def tag(made: Artifact) -> str:
    return digest(made).replace(":", "-")


def test_documents_are_found_from_what_they_are_about(registry: FakeRegistry, tmp_path: Path) -> None:
    made, other = push(registry, tmp_path), push(registry, tmp_path, "y")
    attach(registry, made, b"one")
    attach(registry, made, b"two")
    attach(registry, made, b"of another type", "application/vnd.other")
    attach(registry, other, b"about something else")
    assert sorted(registry.client().referrers(made.reference, TYPE)) == [b"one", b"two"]
    assert registry.client().referrers(other.reference, TYPE) == [b"about something else"]


def test_the_subject_is_the_manifest_as_it_stands(registry: FakeRegistry, tmp_path: Path) -> None:
    made = push(registry, tmp_path)
    about = attach(registry, made, b"one")
    type, body = registry.manifests["slm/model", digest(made)]
    subject = registry.manifest("slm/model", digest(about))["subject"]
    assert subject == {"mediaType": type, "digest": digest(made), "size": len(body)}
    assert digest(push(registry, tmp_path)) == digest(made), "what refers to it changes nothing of it"


def test_a_tag_leads_to_the_documents_too(registry: FakeRegistry, tmp_path: Path) -> None:
    made = push(registry, tmp_path)
    registry.client().tag(sink(registry), made, "v1")
    attach(registry, made, b"one")
    assert registry.client().referrers(f"{sink(registry).repository}:v1", TYPE) == [b"one"]


def test_a_registry_that_keeps_the_list_is_not_given_a_second_one(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        made = push(registry, tmp_path)
        attach(registry, made, b"one")
        assert ("slm/model", tag(made)) not in registry.manifests


def test_the_client_keeps_an_index_under_the_tag_of_the_specification(old: FakeRegistry, tmp_path: Path) -> None:
    made = push(old, tmp_path)
    about = [attach(old, made, content) for content in (b"one", b"two", b"one")]
    type, body = old.manifests["slm/model", tag(made)]
    assert type == INDEX
    listed = json.loads(body)["manifests"]
    assert [each["digest"] for each in listed] == [digest(about[0]), digest(about[1])], "a second push adds nothing"
    assert listed[0]["artifactType"] == TYPE
    assert listed[0]["annotations"] == {"k": "v"}
    assert listed[0]["size"] == len(old.manifests["slm/model", digest(about[0])][1])


def test_two_who_write_the_list_at_the_same_time_are_both_in_it(old: FakeRegistry, tmp_path: Path) -> None:
    made = push(old, tmp_path)
    theirs = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": f"sha256:{'0' * 64}", "size": 1}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [theirs]}).encode()
    place = f"/v2/slm/model/manifests/{tag(made)}"
    old.answer(f"PUT {place}", Answer(201))  # ours is taken, and overwritten by theirs at once
    old.answer(f"GET {place}", Answer(404), Answer(body=index))
    attach(old, made, b"one")
    listed = old.manifest("slm/model", tag(made))["manifests"]
    assert len(listed) == 2
    assert listed[0] == theirs


def test_a_long_list_is_read_page_by_page(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        made = push(registry, tmp_path)
        attach(registry, made, b"one")
        index = registry.referrers("slm/model", digest(made))
        place = f"/v2/slm/model/referrers/{digest(made)}"
        empty = json.dumps({"manifests": []}).encode()
        more = {"Link": f'<{place}?n=1&last=x>; rel="next"'}
        registry.answer(f"GET {place}", Answer(body=empty, headers=more), Answer(body=json.dumps(index).encode()))
        assert registry.client().referrers(made.reference, TYPE) == [b"one"]
        assert registry.count(f"GET {place}") == 2


def test_a_list_that_names_other_types_hides_nothing(tmp_path: Path) -> None:
    """go-containerregistry's registry names the type of the configuration, which is the same for all documents."""
    with FakeRegistry() as registry:
        made = push(registry, tmp_path)
        attach(registry, made, b"one")
        attach(registry, made, b"of another type", "application/vnd.other")
        index = registry.referrers("slm/model", digest(made))
        assert index is not None
        for each in index["manifests"]:
            each["artifactType"] = "application/vnd.oci.empty.v1+json"
        registry.always("GET .*/referrers/", Answer(body=json.dumps(index).encode()))
        assert registry.client().referrers(made.reference, TYPE) == [b"one"]


@pytest.mark.parametrize("nonsense", [b"no json", b"[]", b'{"manifests": [1]}', b'{"manifests": [{"digest": 5}]}'])
def test_a_list_that_is_none_is_refused(tmp_path: Path, nonsense: bytes) -> None:
    with FakeRegistry() as registry:
        made = push(registry, tmp_path)
        registry.always("GET .*/referrers/", Answer(body=nonsense))
        with pytest.raises(RunFailed) as failed:
            registry.client().referrers(made.reference, TYPE)
        assert failed.value.reason is Reason.UNSAFE_SOURCE


def test_a_document_that_is_not_what_its_manifest_promises_is_refused(tmp_path: Path) -> None:
    with FakeRegistry() as registry:
        made = push(registry, tmp_path)
        attach(registry, made, b"one")
        registry.always(f"GET /v2/slm/model/blobs/{sha256(b'one')}", Answer(body=b"two"))
        with pytest.raises(RunFailed) as failed:
            registry.client().referrers(made.reference, TYPE)
        assert failed.value.reason is Reason.UNSAFE_SOURCE


def test_a_list_that_names_what_refers_to_something_else_is_not_believed(old: FakeRegistry, tmp_path: Path) -> None:
    made, other = push(old, tmp_path), push(old, tmp_path, "y")
    attach(old, other, b"about something else")
    old.manifests["slm/model", tag(made)] = old.manifests["slm/model", tag(other)]
    assert old.client().referrers(made.reference, TYPE) == []

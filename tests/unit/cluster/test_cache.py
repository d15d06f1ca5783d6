"""The cache under late, doubled and reordered events, lists older than events, and our own writes."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmops.cluster.cache import TOMBSTONES, Cache, Relist
from slmops.cluster.objects import DAEMON_SET, DISTILLATION, FINE_TUNE, GVK, NODE, POD, Key, Manifest


def body(name: str, version: int, namespace: str = "farm", **fields: Any) -> Manifest:
    metadata = {"name": name, "namespace": namespace, "resourceVersion": str(version), **fields.pop("metadata", {})}
    return {"metadata": metadata, **fields}


def child(name: str, version: int, owner: str, **fields: Any) -> Manifest:
    labels = {"slmops.dev/kind": "FineTune", "slmops.dev/name": owner}
    return body(name, version, metadata={"labels": labels}, **fields)


def version(cache: Cache, name: str, gvk: GVK = DAEMON_SET) -> int | None:
    found = cache.get(gvk, "farm", name)
    return int(found["metadata"]["resourceVersion"]) if found else None


def test_what_is_put_is_found() -> None:
    cache = Cache()
    assert cache.put(DAEMON_SET, body("a", 5, spec={"x": [1, {"y": None}]}))
    assert cache.get(DAEMON_SET, "farm", "a") == {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "a", "namespace": "farm", "resourceVersion": "5"},
        "spec": {"x": [1, {"y": None}]},
    }
    assert cache.get(DAEMON_SET, "other", "a") is None
    assert cache.get(POD, "farm", "a") is None
    assert cache.count(DAEMON_SET) == 1


def test_cluster_scoped_objects_have_no_namespace() -> None:
    cache = Cache()
    cache.put(NODE, {"metadata": {"name": "n", "resourceVersion": "1"}})
    assert cache.get(NODE, None, "n") is not None
    assert [node["metadata"]["name"] for node in cache.list(NODE)] == ["n"]


def test_a_caller_may_change_what_it_gets() -> None:
    cache = Cache()
    given_ = body("a", 5, spec={"x": 1})
    cache.put(DAEMON_SET, given_)
    given_["spec"]["x"] = 2
    found = cache.get(DAEMON_SET, "farm", "a")
    assert found is not None
    found["spec"]["x"] = 3
    again = cache.get(DAEMON_SET, "farm", "a")
    assert again is not None
    assert again["spec"]["x"] == 1


def test_the_same_and_older_versions_are_no_news() -> None:
    cache = Cache()
    cache.put(DAEMON_SET, body("a", 5, spec=1))
    assert not cache.put(DAEMON_SET, body("a", 5, spec=1))
    assert not cache.put(DAEMON_SET, body("a", 4, spec=0))
    assert not cache.put(DAEMON_SET, body("a", 6, spec=1))
    assert version(cache, "a") == 6
    assert cache.put(DAEMON_SET, body("a", 7, spec=2))
    assert not cache.put(DAEMON_SET, body("a", 10, spec=2))
    assert not cache.put(DAEMON_SET, body("a", 9, spec=3)), "9 is less than 10 though not as a text"


def test_a_deleted_object_does_not_come_back_from_an_older_event_or_list() -> None:
    cache = Cache()
    cache.put(DAEMON_SET, body("a", 5))
    assert cache.remove(DAEMON_SET, body("a", 8))
    assert not cache.put(DAEMON_SET, body("a", 7))
    assert cache.replace(DAEMON_SET, [body("a", 5)], version="7") == []
    assert cache.count(DAEMON_SET) == 0
    assert cache.put(DAEMON_SET, body("a", 9)), "created again"


def test_a_late_deletion_does_not_remove_the_successor() -> None:
    cache = Cache()
    cache.put(DAEMON_SET, body("a", 5, metadata={"uid": "old"}))
    cache.replace(DAEMON_SET, [body("a", 9, metadata={"uid": "new"})], version="10")
    assert not cache.remove(DAEMON_SET, body("a", 8, metadata={"uid": "old"}))
    assert version(cache, "a") == 9
    assert cache.remove(DAEMON_SET, body("a", 11))


def test_removing_what_is_not_known_is_no_news() -> None:
    assert not Cache().remove(DAEMON_SET, body("a", 5))


def test_a_list_removes_what_is_not_in_it() -> None:
    cache = Cache()
    for number in range(5):
        cache.put(DAEMON_SET, body(f"j{number}", number + 1))
    changed = cache.replace(DAEMON_SET, [body("j1", 2), body("j2", 30, spec=1), body("new", 31)], version="40")
    assert sorted(item["metadata"]["name"] for item in changed) == ["j0", "j2", "j3", "j4", "new"]
    assert [item["metadata"]["name"] for item in cache.list(DAEMON_SET)] == ["j1", "j2", "new"]


def test_a_list_keeps_what_was_created_after_it() -> None:
    cache = Cache()
    cache.put(DAEMON_SET, body("young", 41))
    assert cache.replace(DAEMON_SET, [], version="40") == []
    assert version(cache, "young") == 41


def test_a_list_of_one_namespace_leaves_the_others() -> None:
    cache = Cache()
    cache.put(DAEMON_SET, body("a", 1, namespace="one"))
    cache.put(DAEMON_SET, body("b", 1, namespace="two"))
    cache.replace(DAEMON_SET, [], version="9", namespace="one")
    assert [item["metadata"]["name"] for item in cache.list(DAEMON_SET)] == ["b"]
    assert cache.list(DAEMON_SET, "one") == []
    assert len(cache.list(DAEMON_SET, "two")) == 1


def test_a_list_in_pages_is_one_list() -> None:
    cache = Cache()
    for name in ("a", "b", "c"):
        cache.put(DAEMON_SET, body(name, 1))
    relist = Relist(cache, DAEMON_SET)
    relist.add([body("a", 1)])
    cache.put(DAEMON_SET, body("d", 60))  # an event while the second page is read
    relist.add([body("c", 1)])
    assert [item["metadata"]["name"] for item in relist.finish("50")] == ["b"]
    assert [item["metadata"]["name"] for item in cache.list(DAEMON_SET)] == ["a", "c", "d"]


def test_children_are_found_by_their_labels() -> None:
    cache = Cache()
    cache.put(DAEMON_SET, child("j2", 1, "a"))
    cache.put(DAEMON_SET, child("j1", 2, "a"))
    cache.put(DAEMON_SET, child("j3", 3, "b"))
    cache.put(DAEMON_SET, body("stranger", 4))
    cache.put(POD, child("p", 5, "a"))

    def names(owner: str) -> list[str]:
        return [item["metadata"]["name"] for item in cache.children(DAEMON_SET, "FineTune", "farm", owner)]

    assert names("a") == ["j1", "j2"]
    assert cache.parent(DAEMON_SET, "farm", "j1") == Key("FineTune", "farm", "a")
    assert cache.children(DAEMON_SET, "Distillation", "farm", "a") == []
    assert cache.children(DAEMON_SET, "FineTune", "other", "a") == []
    cache.put(DAEMON_SET, child("j1", 6, "b"))
    assert names("a") == ["j2"]
    assert names("b") == ["j1", "j3"]
    cache.remove(DAEMON_SET, child("j2", 7, "a"))
    assert names("a") == []
    cache.put(DAEMON_SET, body("j1", 8))
    assert names("b") == ["j3"]


def _refers(gvk: GVK, manifest: Manifest) -> list[Key]:
    return [Key("Distillation", "farm", name) for name in (manifest.get("spec") or {}).get("refs", ())]


def test_referrers_follow_the_references() -> None:
    cache = Cache(refers_to=_refers)
    one, two = Key("Distillation", "farm", "one"), Key("Distillation", "farm", "two")
    cache.put(FINE_TUNE, body("b", 1, spec={"refs": ["one", "two"]}))
    cache.put(FINE_TUNE, body("a", 2, spec={"refs": ["one", "one"]}))
    assert [key.name for key in cache.referrers(one)] == ["a", "b"]
    cache.put(FINE_TUNE, body("b", 3, spec={"refs": ["two"]}))
    assert [key.name for key in cache.referrers(one)] == ["a"]
    assert [key.name for key in cache.referrers(two)] == ["b"]
    cache.remove(FINE_TUNE, body("b", 4))
    assert cache.referrers(two) == []
    assert list(cache._referrers) == [one]


def test_our_own_status_write_is_no_news() -> None:
    cache = Cache()
    cache.put(FINE_TUNE, body("a", 5, spec=1))
    written = body("a", 6, spec=1, status={"phase": "Ready"})
    cache.wrote(FINE_TUNE, written)
    assert version(cache, "a", FINE_TUNE) == 6
    assert not cache.put(FINE_TUNE, written)


@pytest.mark.parametrize("order", [(6, 7), (7, 6), (7,), (6,)])
def test_a_change_hidden_in_the_answer_to_our_write_is_news(order: tuple[int, ...]) -> None:
    """A user changed the spec (6) between our read (5) and our status write (7): that pass has not seen it."""
    cache = Cache()
    cache.put(FINE_TUNE, body("a", 5, spec=1))
    cache.wrote(FINE_TUNE, body("a", 7, spec=2, status={"phase": "Ready"}))
    events = {6: body("a", 6, spec=2), 7: body("a", 7, spec=2, status={"phase": "Ready"})}
    told = [cache.put(FINE_TUNE, events[number]) for number in order]
    assert any(told)
    assert version(cache, "a", FINE_TUNE) == 7


def test_news_is_told_once() -> None:
    cache = Cache()
    cache.wrote(DAEMON_SET, body("a", 7, spec=2))
    assert cache.put(DAEMON_SET, body("a", 7, spec=2))
    assert not cache.put(DAEMON_SET, body("a", 7, spec=2))


def test_an_unseen_write_stays_unseen_over_the_next_write() -> None:
    cache = Cache()
    cache.wrote(FINE_TUNE, body("a", 7, spec=2))
    cache.wrote(FINE_TUNE, body("a", 8, spec=2, status={"phase": "Ready"}))
    assert cache.put(FINE_TUNE, body("a", 7, spec=2))


def test_what_we_created_is_no_news_and_what_follows_is() -> None:
    cache = Cache()
    cache.wrote(DAEMON_SET, body("a", 7, spec=1), created=True)
    assert not cache.put(DAEMON_SET, body("a", 7, spec=1))
    assert cache.put(DAEMON_SET, body("a", 8, spec=2))


def test_our_write_does_not_hide_a_newer_event() -> None:
    cache = Cache()
    cache.put(FINE_TUNE, body("a", 9, spec=3))
    cache.wrote(FINE_TUNE, body("a", 7, spec=2))
    assert version(cache, "a", FINE_TUNE) == 9


def test_memory_of_deletions_is_bounded() -> None:
    cache = Cache()
    for number in range(TOMBSTONES + 100):
        cache.remove(DAEMON_SET, body(f"j{number}", number))
    assert len(cache._stores[DAEMON_SET].deleted) == TOMBSTONES


def test_a_huge_or_odd_first_body_does_no_harm() -> None:
    """It becomes the compressor's dictionary."""
    cache = Cache()
    big = body("big", 1, data={"k": "ж" * 700_000})
    cache.put(DISTILLATION, big)
    cache.put(DISTILLATION, body("small", 2, spec={"text": '"\\\n\0'}))
    found = cache.get(DISTILLATION, "farm", "big")
    assert found is not None
    assert found["data"] == big["data"]
    assert [item["metadata"]["name"] for item in cache.list(DISTILLATION)] == ["big", "small"]


EVENTS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["change", "change", "delete"])), min_size=1, max_size=12
)


@settings(max_examples=150)
@given(EVENTS, st.randoms(use_true_random=False), st.integers(0, 12))
def test_events_of_any_order_and_a_list_of_any_age_end_in_the_truth(
    history: list[tuple[str, str]], rng: random.Random, list_at: int
) -> None:
    """Apart from deletions themselves, which only a later list can mend when their event is lost."""
    truth: dict[str, int] = {}
    events: list[tuple[str, Manifest]] = []
    snapshots = [dict(truth)]
    for number, (name, action) in enumerate(history, start=1):
        if action == "change":
            truth[name] = number
            events.append(("MODIFIED", child(name, number, f"owner{number % 3}", spec=number)))
        elif truth.pop(name, None):
            events.append(("DELETED", child(name, number, "owner0", spec=number)))
        snapshots.append(dict(truth))
    at = min(list_at, len(history))
    listed = [child(name, number, f"owner{number % 3}", spec=number) for name, number in snapshots[at].items()]

    cache = Cache()
    doubled = events + [event for event in events if rng.random() < 0.3]
    rng.shuffle(doubled)
    cut = rng.randint(0, len(doubled))
    for type, manifest in doubled[:cut]:
        cache.put(DAEMON_SET, manifest) if type != "DELETED" else cache.remove(DAEMON_SET, manifest)
    cache.replace(DAEMON_SET, listed, version=str(at))
    for type, manifest in doubled[cut:]:
        cache.put(DAEMON_SET, manifest) if type != "DELETED" else cache.remove(DAEMON_SET, manifest)

    found = {item["metadata"]["name"]: int(item["metadata"]["resourceVersion"]) for item in cache.list(DAEMON_SET)}
    assert found == truth
    for owner in ("owner0", "owner1", "owner2"):
        names = {item["metadata"]["name"] for item in cache.children(DAEMON_SET, "FineTune", "farm", owner)}
        assert names == {name for name, number in truth.items() if f"owner{number % 3}" == owner}

"""What makes a revision another one, and what has to be there before there is one."""

from typing import Any

import pytest

from slmops.api.edgedeployment import EdgeDeployment
from slmops.rollout.revision import Revision, _shape, wanted
from slmops.settings import Images, Settings
from slmops.state import Manifest, Observed, Problem
from tests.unit.fleet_builders import SETTINGS, deployment, image, revision, servers

FARMS = {"name": "farms", "selector": {"matchLabels": {"pool": "farms"}}}


@pytest.mark.parametrize(
    "changed",
    [
        {"model": {"image": image("b")}},
        {"runtime": {"port": 9090}},
        {"runtime": {"image": image("runtime")}},
        {"runtime": {"maxQueue": 8}},
        {"runtime": {"maxLength": 512}},
        {"runtime": {"resources": {"limits": {"memory": "2Gi"}}}},
        {"pools": [FARMS | {"resources": {"limits": {"memory": "2Gi"}}}]},
        {"pools": [FARMS | {"tolerations": [{"key": "edge", "operator": "Exists"}]}]},
        {"annotations": {"slmops.dev/retry": "1"}},
    ],
)
def test_what_shapes_the_servers_makes_another_revision(changed: dict[str, Any]) -> None:
    assert revision(deployment(**changed)).name != revision(deployment()).name


@pytest.mark.parametrize(
    "changed",
    [
        {"paused": True},
        {"strategy": {"maxUnavailable": 5}},
        {"rollback": {"automatic": False}},
        {"benchmark": {"data": {"uri": "oci://registry.example/slm/data:v1"}}},
        {"pools": [FARMS | {"selector": {"matchLabels": {"pool": "farms", "region": "north"}}}]},
        {"annotations": {"example.com/touch": "1"}},
        {"generation": 7},
    ],
)
def test_what_does_not_is_the_same_revision(changed: dict[str, Any]) -> None:
    assert revision(deployment(**changed)) == revision(deployment())


@pytest.mark.parametrize("order", [1, -1])
def test_without_the_annotation_what_came_of_one_is_wanted_and_first_of_all_what_is_stable(order: int) -> None:
    tried = [deployment(annotations={"slmops.dev/retry": word}) for word in "12"]
    (_, stable), (_, candidate) = servers(tried[0]), servers(tried[1], track="candidate")
    both = Observed(children=(stable, candidate)[::order])
    assert revision(deployment(), both) == revision(tried[0])
    assert revision(deployment(), Observed(children=(candidate,))) == revision(tried[1])
    assert revision(deployment("b"), both) == revision(deployment("b")), "they are servers of something else"
    assert revision(deployment(annotations={"slmops.dev/retry": "3"}), both).name not in {
        revision(tried[0]).name, revision(tried[1]).name
    }  # fmt: skip


def test_an_upgrade_of_the_operators_runtime_is_a_candidate_like_any_other() -> None:
    newer = Settings(images=Images(edge="slmops/edge:0.2.0"))
    found = wanted(deployment(), Observed(), newer)
    assert isinstance(found, Revision)
    assert found.name != revision(deployment()).name
    own = deployment(runtime={"image": image("runtime")})
    assert wanted(own, Observed(), newer) == wanted(own, Observed(), SETTINGS), "unless the user chose an image"


# --- a QuantizedModel as the source


def _quantized(*phases: str, generation: int = 1, observed: int = 1, names: tuple[str, ...] = ("int4", "int8"),
               message: str | None = None) -> Manifest:  # fmt: skip
    variants = [
        {"name": name, "phase": phase, "message": message} | ({"reference": image(name)} if phase == "Ready" else {})
        for name, phase in zip(names, phases, strict=False)
    ]
    return {
        "metadata": {"name": "q", "generation": generation},
        "spec": {"variants": [{"name": name} for name in names]},
        "status": {"observedGeneration": observed, "variants": variants},
    }


def _of_quantized(
    variant: str | None = None, name: str = "q", adapter: str | None = None, **runtime: str
) -> EdgeDeployment:
    pool = FARMS | {key: value for key, value in (("variant", variant), ("adapter", adapter)) if value}
    return deployment(model={"quantizedModel": {"name": name}}, pools=[pool], runtime=runtime)


def _observed(manifest: Manifest, name: str = "q") -> Observed:
    return Observed(references={("QuantizedModel", name): manifest})


def test_the_first_variant_serves_where_none_is_named() -> None:
    found = revision(_of_quantized(), _observed(_quantized("Ready", "Ready")))
    assert found.images == {"farms": image("int4")}
    assert found.model == "q"
    assert revision(_of_quantized("int8"), _observed(_quantized("Ready", "Ready"))).images == {"farms": image("int8")}


def test_each_pool_has_its_own_variant() -> None:
    barns = {"name": "barns", "selector": {"matchLabels": {"pool": "barns"}}, "variant": "int8"}
    both = deployment(model={"quantizedModel": {"name": "q"}}, pools=[FARMS, barns])
    images = revision(both, _observed(_quantized("Ready", "Ready"))).images
    assert images == {"farms": image("int4"), "barns": image("int8")}


def test_the_name_that_clients_ask_for_belongs_to_the_revision() -> None:
    """The servers' configuration never changes, so the same image under another name has to be rolled out."""
    same = _quantized("Ready")
    one = revision(_of_quantized(name="q"), _observed(same, "q"))
    other = revision(_of_quantized(name="r"), _observed(same, "r"))
    assert one.images == other.images
    assert one.name != other.name


@pytest.mark.parametrize(
    ("variant", "manifest", "reason", "waiting", "words"),
    [
        (None, None, "ReferenceNotFound", True, "QuantizedModel q does not exist"),
        ("fp16", _quantized("Ready", "Ready"), "UnknownVariant", False, "no variant fp16, it has int4, int8"),
        (None, _quantized("Ready", generation=2), "ReferenceNotReady", True, "waiting for QuantizedModel q"),
        (None, _quantized(), "ReferenceNotReady", True, "waiting for QuantizedModel q"),
        (
            "int8",
            _quantized("Ready", "Quantizing"),
            "ReferenceNotReady",
            True,
            "int8 of QuantizedModel q is Quantizing",
        ),
        (None, _quantized("Rejected", message="ExactMatch is 10%"), "ReferenceNotReady", True, "ExactMatch is 10%"),
        (None, {"metadata": {"generation": 1}}, "ReferenceNotReady", True, "waiting for QuantizedModel q"),
    ],
)
def test_without_a_finished_variant_there_is_no_revision(
    variant: str | None, manifest: Manifest | None, reason: str, waiting: bool, words: str
) -> None:
    found = wanted(_of_quantized(variant), _observed(manifest) if manifest else Observed(), SETTINGS)
    assert isinstance(found, Problem)
    assert (found.reason, found.waiting) == (reason, waiting)
    assert words in found.message


def test_the_engine_belongs_to_the_revision() -> None:
    """And servers of before there was a choice stay what they are."""
    names = [revision(deployment(runtime=runtime)).name
             for runtime in ({}, {"engine": "OnnxRuntimeGenAI"}, {"engine": "FoundryLocal"})]  # fmt: skip
    assert names[0] == names[1] != names[2]
    assert "engine" not in str(_shape(deployment(), SETTINGS, {}, {}))


def test_a_pools_own_adapter_and_generation_belong_to_the_revision() -> None:
    pool: dict[str, Any] = {"name": "farms", "selector": {"matchLabels": {"pool": "farms"}}}
    wished: list[dict[str, Any]] = [{}, {"adapter": "a"}, {"adapter": "b"}, {"generation": {"temperature": 0.5}}]
    names = {revision(deployment(pools=[pool | own])).name for own in wished}
    assert len(names) == len(wished)
    assert "adapter" not in str(_shape(deployment(), SETTINGS, {}, {}))


def test_an_adapter_that_no_variant_has_is_named() -> None:
    manifest = _quantized("Ready", "Ready")
    manifest["status"]["variants"][0]["adapters"] = [{"name": "irrigation"}]
    for variant, adapter, words in ((None, "irrigation", ""), (None, "noise", "has no adapter noise, it has irrigation"),
                                    ("int8", "irrigation", "has no adapter irrigation, it has none")):  # fmt: skip
        found = wanted(_of_quantized(variant, adapter=adapter), _observed(manifest), SETTINGS)
        if words:
            assert isinstance(found, Problem)
            assert (found.reason, found.waiting) == ("UnknownAdapter", False)
            assert words in found.message
        else:
            assert isinstance(found, Revision)


def test_foundry_local_gets_no_model_with_adapters() -> None:
    manifest = _quantized("Ready", "Ready")
    manifest["status"]["variants"][0]["adapters"] = [{"name": "irrigation"}]
    for variant, served in ((None, False), ("int8", True)):
        found = wanted(_of_quantized(variant, engine="FoundryLocal"), _observed(manifest), SETTINGS)
        assert isinstance(found, Problem) != served
        assert served or (found.reason, found.waiting) == ("NothingToUse", False)  # type: ignore[union-attr]
    assert isinstance(wanted(_of_quantized(), _observed(manifest), SETTINGS), Revision)


@pytest.mark.parametrize(
    ("made", "words"),
    [({"format": "GGUF"}, "int4 of QuantizedModel q is GGUF for CPU, the edge runtime serves ONNX for CPU"),
     ({"format": "ONNX", "device": "CUDA"}, "is ONNX for CUDA")],
)  # fmt: skip
def test_a_variant_that_the_edge_runtime_cannot_read_is_not_rolled_out(made: dict[str, str], words: str) -> None:
    manifest = _quantized("Ready", "Ready")
    manifest["status"]["variants"][0] |= made
    found = wanted(_of_quantized(), _observed(manifest), SETTINGS)
    assert isinstance(found, Problem)
    assert (found.reason, found.waiting) == ("NothingToUse", False)
    assert words in found.message
    assert revision(_of_quantized("int8"), _observed(manifest)).images == {"farms": image("int8")}


def test_one_variant_that_was_rejected_does_not_keep_another_from_being_used() -> None:
    assert revision(_of_quantized("int8"), _observed(_quantized("Rejected", "Ready"))).images == {
        "farms": image("int8")
    }


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ([], "is not signed yet: waiting for it"),
        ([{"type": "Signed", "status": "Unknown", "message": ""}], "is not signed yet: waiting for it"),
        ([{"type": "Signed", "status": "False", "message": "no key"}], "is not signed yet: no key"),
        ([{"type": "Signed", "status": "True", "message": "with the key"}], None),
    ],
)
def test_what_signs_its_images_is_waited_for(conditions: list[Manifest], words: str | None) -> None:
    """Both are applied at once: who looked for the signature before it is made would refuse the images."""
    made = _quantized("Ready", "Ready")
    made["spec"]["output"] = {"repository": "registry.example/slm/q", "sign": {"secret": "cosign"}}
    made["status"]["conditions"] = conditions
    found = wanted(_of_quantized(), _observed(made), SETTINGS)
    if words is None:
        assert isinstance(found, Revision)
    else:
        assert isinstance(found, Problem)
        assert (found.reason, found.waiting) == ("ReferenceNotReady", True)
        assert words in found.message

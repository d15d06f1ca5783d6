"""QuantizedModel -> one Job for each variant, all at once."""

from typing import Any

from slmops.api.conditions import ConditionType
from slmops.api.quantizedmodel import QuantizedModel
from slmops.contract import Report
from slmops.plan.quantizedmodel import plan_quantizedmodel
from slmops.state import ANNOTATION_RETRY, Observed, Plan
from tests.unit.builders import (
    DATA,
    DIGEST,
    FAILED,
    SETTINGS,
    configuration,
    done,
    figures,
    jobs,
    live,
    quantizedmodel,
    reference,
    report,
    together,
)

TWO = {"variants": [{"name": "cpu-int4"}, {"name": "cpu-int8", "precision": "INT8"}]}


def plan_of(resource: QuantizedModel, observed: Observed | None = None) -> Plan:
    return plan_quantizedmodel(resource, observed or Observed(), SETTINGS)


def names(spec: dict[str, Any]) -> dict[str, str]:
    """Job names by variant."""
    resource = quantizedmodel(spec)
    wanted = [variant.name for variant in resource.spec.variants]
    return dict(zip(wanted, (step.name for step in plan_of(resource).steps), strict=True))


def test_every_variant_is_a_job_and_all_start_at_once() -> None:
    plan = plan_of(quantizedmodel(TWO))
    assert len(jobs(plan)) == 2
    assert [configuration(plan, index)["variant"] for index in (0, 1)] == ["cpu-int4", "cpu-int8"]


def test_images_are_compressed_where_that_is_wished_and_jobs_of_before_keep_their_names() -> None:
    before, same, packed = (
        plan_of(quantizedmodel({**TWO, **image}))
        for image in ({}, {"image": {"compression": "None"}}, {"image": {"compression": "Zstd"}})
    )
    assert [configuration(plan)["compression"] for plan in (before, same, packed)] == ["None", "None", "Zstd"]
    assert [step.name for step in before.steps] == [step.name for step in same.steps]
    assert {step.name for step in before.steps}.isdisjoint(step.name for step in packed.steps)


PLATFORMS = {
    "variants": [{"name": "amd"}, {"name": "arm", "target": {"architecture": "arm64"}}],
    "evaluation": {"data": DATA}, "gates": [{"metric": "ExactMatch", "min": "90%"}],
}  # fmt: skip


def built(exact_match: float = 0.95) -> Report:
    return report("image", evaluation={"model": figures(exact_match), "reference": figures(0.95)})


def index_of(spec: dict[str, Any], *reports: Report) -> Plan:
    """The plan once the variants are built."""
    resource = quantizedmodel(spec)
    return plan_of(resource, done(plan_of(resource), *reports))


def test_variants_for_several_platforms_get_an_index_once_all_of_them_are_good() -> None:
    plan = index_of(PLATFORMS, built(), built())
    (job,) = jobs(plan)
    assert plan.steps[-1].role == "index"
    assert job["metadata"]["name"] == plan.steps[-1].name
    run = configuration(plan)
    assert run["type"] == "Index"
    assert [(each["name"], each["architecture"]) for each in run["variants"]] == [("amd", "amd64"), ("arm", "arm64")]
    assert {each["image"]["uri"] for each in run["variants"]} == {f"oci://registry.example/slm/image@{DIGEST}"}
    assert jobs(index_of(PLATFORMS, built(), built(0.5))) == [], "one of them is not good enough"
    assert jobs(plan_of(quantizedmodel(PLATFORMS)))[-1]["metadata"]["labels"]["slmops.dev/role"] != "index"


def test_variants_for_one_platform_get_none() -> None:
    assert jobs(index_of({**PLATFORMS, "variants": TWO["variants"]}, built(), built())) == []


def test_the_index_asks_for_no_gpu() -> None:
    spec = {**PLATFORMS, "run": {"resources": {"limits": {"nvidia.com/gpu": 1}}, "nodeSelector": {"pool": "gpu"}}}
    (job,) = jobs(index_of(spec, built(), built()))
    pod = job["spec"]["template"]["spec"]
    assert "nvidia.com/gpu" not in str(pod["containers"][0]["resources"])
    assert pod["nodeSelector"] == {"pool": "gpu"}


def test_variants_whose_names_begin_alike_are_jobs_of_their_own() -> None:
    found = names({"variants": [{"name": "processor-a"}, {"name": "processor-b"}, {"name": "processor-" + "c" * 30}]})
    assert len(set(found.values())) == 3
    assert all(len(name) <= 63 for name in found.values())


def test_a_name_that_is_cut_at_a_dash_stays_a_name() -> None:
    (found,) = names({"variants": [{"name": "seventy-five"}]}).values()
    assert "--" not in found


def test_a_variant_that_is_added_or_changed_leaves_the_others_alone() -> None:
    before, after = names(TWO), names({"variants": [*TWO["variants"], {"name": "more"}]})
    assert before.items() <= after.items()
    other = {"name": "cpu-int8", "precision": "INT8", "target": {"architecture": "arm64"}}
    changed = names({"variants": [TWO["variants"][0], other]})
    assert changed["cpu-int4"] == before["cpu-int4"]
    assert changed["cpu-int8"] != before["cpu-int8"]


def test_the_order_of_the_variants_repeats_no_work() -> None:
    assert names({"variants": TWO["variants"][::-1]}) == names(TWO)


def test_a_variant_that_is_taken_away_loses_its_job_alone() -> None:
    observed = done(plan_of(quantizedmodel(TWO)), report("image"), report("image"))
    plan = plan_of(quantizedmodel({"variants": TWO["variants"][:1]}), observed)
    assert {m["metadata"]["name"] for m in plan.remove} == {names(TWO)["cpu-int8"]}
    assert plan.apply == ()


def test_a_retry_runs_the_failed_variant_alone() -> None:
    plan = plan_of(quantizedmodel(TWO))
    good = done(plan, report("image"), report("image"))
    bad = live(jobs(plan)[1], FAILED)
    children = tuple(bad if child["metadata"]["uid"] == bad["metadata"]["uid"] else child for child in good.children)
    pods = tuple(pod for pod in good.pods if bad["metadata"]["uid"] not in str(pod["metadata"]["ownerReferences"]))
    again = quantizedmodel(TWO, metadata={"annotations": {ANNOTATION_RETRY: "1"}})
    assert list(plan_of(again, Observed(children=children, pods=pods)).remove) == [bad]


def test_a_name_that_is_used_twice_is_told_and_costs_nothing_that_is_there() -> None:
    observed = done(plan_of(quantizedmodel(TWO)), report("image"), report("image"))
    plan = plan_of(quantizedmodel({"variants": [{"name": "cpu-int4"}, {"name": "cpu-int4"}]}), observed)
    assert plan.problem is not None
    assert (plan.problem.condition, plan.problem.reason) == (ConditionType.ACCEPTED, "DuplicateName")
    assert "cpu-int4" in plan.problem.message
    assert (plan.apply, plan.remove) == ((), ())


def test_a_model_that_is_waited_for_makes_no_job() -> None:
    resource = quantizedmodel({"model": {"fineTune": {"name": "tuned"}}})
    assert plan_of(resource).apply == ()
    plan = plan_of(resource, together(Observed(), references=[reference("FineTune", "tuned")]))
    assert configuration(plan)["model"]["uri"].startswith("oci://registry.example/slm/tuned@sha256:")


def test_what_the_quantizer_is_told() -> None:
    variant = {"name": "small", "precision": "INT4", "algorithm": "KQuant", "blockSize": 64, "symmetric": False,
               "target": {"architecture": "arm64"}}  # fmt: skip
    generation = {"maxLength": 99, "temperature": 0.1, "topP": 0.2, "repetitionPenalty": 1.3}
    told = configuration(plan_of(quantizedmodel({"variants": [variant], "generation": generation})))
    assert (told["type"], told["name"], told["variant"]) == ("Quantize", "farm-tuned", "small")
    assert (told["precision"], told["algorithm"], told["block_size"]) == ("INT4", "KQuant", 64)
    assert (told["symmetric"], told["architecture"]) == (False, "arm64")
    assert told["generation"] == {"max_length": 99, "temperature": 0.1, "top_p": 0.2, "repetition_penalty": 1.3}


def test_nothing_is_measured_without_data_to_measure_on() -> None:
    assert configuration(plan_of(quantizedmodel()))["evaluation"] is None
    assert configuration(plan_of(quantizedmodel({"evaluation": {"samples": 5}})))["evaluation"] is None
    told = configuration(plan_of(quantizedmodel({"evaluation": {"data": DATA, "samples": 5, "maxNewTokens": 6}})))
    assert (told["evaluation"]["samples"], told["evaluation"]["max_new_tokens"]) == (5, 6)


def test_gates_alone_build_nothing_again() -> None:
    measured = TWO | {"evaluation": {"data": DATA}}
    assert names(measured) == names(measured | {"gates": [{"metric": "AccuracyRetained", "min": "92%"}]})


CALIBRATION = {"data": DATA, "samples": 32, "maxSequenceLength": 256}


def test_calibration_data_go_to_the_variants_that_need_them_alone() -> None:
    variants = [{"name": "plain"}, {"name": "gptq", "algorithm": "GPTQ"}, {"name": "awq", "algorithm": "AWQ"}]
    plan = plan_of(quantizedmodel({"variants": variants, "calibration": CALIBRATION}))
    told = [configuration(plan, index) for index in range(3)]
    assert told[0]["calibration"] is None
    for run in told[1:]:
        assert run["calibration"]["data"]["source"]["uri"] == DATA["uri"]
        assert (run["calibration"]["samples"], run["calibration"]["max_sequence_length"]) == (32, 256)


def test_other_calibration_data_rebuild_the_calibrated_variants_alone() -> None:
    variants = {"variants": [{"name": "plain"}, {"name": "gptq", "algorithm": "GPTQ"}]}
    before = names(variants | {"calibration": CALIBRATION})
    after = names(variants | {"calibration": CALIBRATION | {"samples": 64}})
    assert before["plain"] == after["plain"] == names({"variants": [{"name": "plain"}]})["plain"]
    assert before["gptq"] != after["gptq"]


def test_a_secret_for_calibration_data_is_mounted() -> None:
    data = DATA | {"credentials": {"secret": "data-login"}}
    variant = {"name": "gptq", "algorithm": "GPTQ"}
    told = configuration(plan_of(quantizedmodel({"variants": [variant], "calibration": {"data": data}})))
    assert "data-login" in told["calibration"]["data"]["source"]["credentials"]["path"]


# --- adapters

ADDRESS = "oci://registry.example/slm/irrigation:v1"
IRRIGATION, GREENHOUSE = {"name": "irrigation", "uri": ADDRESS}, {"name": "greenhouse", "fineTune": {"name": "tuned"}}
TUNED = reference("FineTune", "tuned", {"adapter": {"reference": f"registry.example/slm/tuned@{DIGEST}"}})


def test_every_variant_is_told_of_all_adapters_in_the_order_of_their_names() -> None:
    observed = together(Observed(), references=[TUNED])
    plan = plan_of(quantizedmodel(TWO | {"adapters": [IRRIGATION, GREENHOUSE]}), observed)
    for index in (0, 1):
        told = configuration(plan, index)["adapters"]
        assert {name: source["uri"] for name, source in told.items()} == {
            "greenhouse": f"oci://registry.example/slm/tuned@{DIGEST}", "irrigation": ADDRESS,
        }  # fmt: skip
        assert list(told) == ["greenhouse", "irrigation"]


def test_adapters_rebuild_what_has_them_and_their_order_and_their_absence_rebuild_nothing() -> None:
    other = IRRIGATION | {"name": "barn"}
    plain, none, both, swapped, renamed = (
        names({"adapters": adapters} if adapters is not None else {})["cpu-int4"]
        for adapters in (None, [], [IRRIGATION, other], [other, IRRIGATION], [IRRIGATION, other | {"name": "shed"}])
    )
    assert plain == none
    assert both == swapped
    assert len({plain, both, renamed}) == 3


def test_an_adapter_that_is_not_there_yet_is_waited_for() -> None:
    plan = plan_of(quantizedmodel({"adapters": [GREENHOUSE]}))
    assert plan.problem is not None
    assert (plan.problem.reason, plan.problem.waiting) == ("ReferenceNotFound", True)
    assert plan.problem.message == "spec.adapters[greenhouse]: FineTune tuned does not exist in this namespace"
    assert not jobs(plan)


def test_two_adapters_of_one_name_are_refused() -> None:
    plan = plan_of(quantizedmodel({"adapters": [IRRIGATION, IRRIGATION]}))
    assert plan.problem is not None
    assert (plan.problem.condition, plan.problem.reason) == (ConditionType.ACCEPTED, "DuplicateName")
    assert plan.problem.message == "spec.adapters: the name irrigation is used twice; names tell adapters apart"


def test_a_precision_to_fall_back_to_has_the_adapters_too() -> None:
    spec = {"adapters": [IRRIGATION], "fallback": ["INT8"], "evaluation": {"data": DATA},
            "gates": [{"metric": "ExactMatch", "min": "90%"}]}  # fmt: skip
    resource = quantizedmodel(spec)
    low = report("image", evaluation={"model": figures(0.5), "reference": figures(0.95)})
    again = plan_of(resource, done(plan_of(resource), low))
    told = configuration(again)
    assert (told["precision"], list(told["adapters"])) == ("INT8", ["irrigation"])

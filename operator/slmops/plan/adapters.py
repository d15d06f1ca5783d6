"""Several adapters -> a training Job for each, as many side by side as are wanted; then one that joins their layers.

Each adapter is one training with a spec of its own, so a change of one changes its Job alone, and one that fails does not
take the others with it.
"""

from collections.abc import Mapping, Sequence

from slmops import contract
from slmops.api.adapters import Adapter
from slmops.api.conditions import ConditionType
from slmops.api.finetune import FineTune, FineTuneSpec
from slmops.api.run import RunSpec
from slmops.figures import passed
from slmops.plan.adaptation import OLIVE, TRAIN, one_training
from slmops.plan.batch import batch_plan
from slmops.plan.job import Work, work
from slmops.plan.signing import published, signing
from slmops.plan.sources import Sources, Unresolved
from slmops.settings import Settings
from slmops.state import Observed, Plan, Problem

JOIN = "join"


def train_role(adapter: str) -> str:
    """Role of the Job that trains an adapter, or measures and publishes what another engine has learned."""
    return f"{TRAIN}-{adapter}"


def olive_role(adapter: str) -> str:
    """Role of the Job in which Olive learns an adapter."""
    return f"{OLIVE}-{adapter}"


def spec_of(spec: FineTuneSpec, adapter: Adapter) -> FineTuneSpec:
    """The spec of one adapter by itself."""
    own = {field: getattr(adapter, field) for field in ("lora", "task", "evaluation", "gates")}
    wanted = {field: value for field, value in own.items() if value is not None}
    return spec.model_copy(update={"data": adapter.data, "adapters": None, "merge": False} | wanted)


def plan_adapters(resource: FineTune, adapters: Sequence[Adapter], observed: Observed, settings: Settings) -> Plan:
    """The Jobs that the FineTune needs now."""
    works: list[Work] = []
    free = resource.spec.parallelism or 1
    waiting: list[list[Work]] = []
    problem = None
    for adapter in adapters:
        own, trouble = _own(resource, adapter, observed, settings)
        problem = problem or trouble
        if not own:
            continue  # another adapter's slip is none of the others' business
        if observed.child("Job", own[0].step.name) is None:
            waiting.append(own)
            continue
        works += own
        free -= 0 if trouble or _over(own, train_role(adapter.name), observed) else 1
    begun = max(0, free)
    works += [item for own in waiting[:begun] for item in own]
    if all(_trained(works, adapter, observed) for adapter in adapters):
        try:
            works.append(_join(resource, works, adapters, observed, settings))
            works += _signing(resource, works, adapters, observed, settings)
        except Unresolved as unresolved:
            problem = unresolved.problem
    return batch_plan(resource, observed, works, problem, later=[item for own in waiting[begun:] for item in own])


def _own(
    resource: FineTune, adapter: Adapter, observed: Observed, settings: Settings
) -> tuple[list[Work], Problem | None]:
    """The Jobs of one adapter that can be described, and what is in the way of the next."""
    spec = spec_of(resource.spec, adapter)
    roles = train_role(adapter.name), olive_role(adapter.name)
    found: list[Work] = []
    try:
        for item in one_training(resource, spec, observed, settings, roles, adapter.name):
            found.append(item)  # those before one that cannot be described stay
    except Unresolved as unresolved:
        return found, unresolved.problem
    return found, None


def _over(own: Sequence[Work], train: str, observed: Observed) -> bool:
    """Whether nothing of this adapter runs any more, or will by itself."""
    states = {item.step.role: observed.job(item.step.name) for item in own}
    failed = any(state.phase == "Failed" for state in states.values())
    return failed or (train in states and states[train].finished)


def _trained(works: Sequence[Work], adapter: Adapter, observed: Observed) -> bool:
    role = train_role(adapter.name)
    return any(w.step.role == role and observed.job(w.step.name).phase == "Succeeded" for w in works)


def _join(
    resource: FineTune, works: Sequence[Work], adapters: Sequence[Adapter], observed: Observed, settings: Settings
) -> Work:
    """The Job that publishes the layers of all as one image. It moves no weights, so it gets no GPU and no volume."""
    spec = resource.spec
    sources = Sources(observed)
    jobs = {item.step.role: item.step.name for item in works}
    _check_base({a.name: jobs[train_role(a.name)] for a in adapters}, observed)
    run = contract.JoinRun(
        run="",
        adapters={a.name: _member(spec, jobs[train_role(a.name)], observed, sources) for a in adapters},
        output=sources.sink(spec.output),
    )
    place = RunSpec.model_validate(spec.run.model_dump(exclude={"resources", "runtime_class_name"}))
    return work(resource, JOIN, run, image=settings.images.trainer, run_spec=place, sources=sources, settings=settings)


def _signing(
    resource: FineTune, works: Sequence[Work], adapters: Sequence[Adapter], observed: Observed, settings: Settings
) -> list[Work]:
    """The Job that signs the adapters and their image, once all of them have passed their gates."""
    reports = {item.step.role: observed.job(item.step.name).report for item in works}
    joined = observed.job(works[-1].step.name)
    made: dict[str, contract.Artifact] = {}
    for adapter in adapters:
        report = reports[train_role(adapter.name)]
        gates = resource.spec.gates if adapter.gates is None else adapter.gates
        if report is None or not passed(gates, report.evaluation, ("baseline",)):
            return []
        made[adapter.name] = report.artifacts["adapter"]
    if joined.phase != "Succeeded" or joined.report is None:
        return []
    made = {f"adapter.{name}": artifact for name, artifact in made.items()} | published(joined.report)
    return signing(resource, made, resource.spec.output, resource.spec.run, settings)


def _check_base(trainings: Mapping[str, str], observed: Observed) -> None:
    """An image of several adapters is good for one base. A tag may have been moved between two trainings."""
    reports = {name: observed.job(job).report for name, job in trainings.items()}
    bases = {name: report.inputs["base"] for name, report in reports.items() if report and "base" in report.inputs}
    if len(set(bases.values())) > 1:
        told = ", ".join(f"{name} on {base}" for name, base in bases.items())
        text = f"the adapters were trained on different bases, no image can hold them all: {told}; name spec.base by digest"
        raise Unresolved(Problem(ConditionType.INPUTS_RESOLVED, "BasesDiffer", text))


def _member(spec: FineTuneSpec, job: str, observed: Observed, sources: Sources) -> contract.Member:
    report = observed.job(job).report
    made = report.artifacts if report else {}
    if "adapter" not in made or "layer" not in made:
        text = f"the Job {job} reports success and no adapter; install images of the operator's version, then delete it"
        raise Unresolved(Problem(ConditionType.INPUTS_RESOLVED, "AdapterMissing", text))
    return contract.Member(adapter=sources.own(made["adapter"], spec.output),
                           layer=sources.own(made["layer"], spec.output))  # fmt: skip

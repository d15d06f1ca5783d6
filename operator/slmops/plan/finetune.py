"""FineTune -> one training Job."""

from slmops import contract
from slmops.api.finetune import FineTune, Lora
from slmops.plan.batch import batch_plan
from slmops.plan.job import work
from slmops.plan.sources import Sources, Unresolved
from slmops.plan.training import evaluation, hyperparameters, split
from slmops.settings import Settings
from slmops.state import Observed, Plan

TRAIN = "train"


def plan_finetune(resource: FineTune, observed: Observed, settings: Settings) -> Plan:
    """The Job that the FineTune needs."""
    spec = resource.spec
    sources = Sources(observed)
    lora = spec.lora or Lora()
    try:
        run = contract.TrainRun(
            run="",
            base=sources.model(spec.base, "spec.base"),
            method=spec.method,
            lora=contract.Lora(
                rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, target_modules=tuple(lora.target_modules)
            ),
            merge=spec.merge,
            train=sources.data(spec.data.train),
            validation=sources.data(spec.data.validation) if spec.data.validation else None,
            validation_split=split(spec.data),
            hyperparameters=hyperparameters(spec.training),
            evaluation=evaluation(spec.evaluation, sources, {}),
            output=sources.sink(spec.output),
        )
    except Unresolved as unresolved:
        return batch_plan(resource, observed, [], unresolved.problem)
    train = work(resource, TRAIN, run, image=settings.images.trainer, run_spec=spec.run, sources=sources,
                 settings=settings)  # fmt: skip
    return batch_plan(resource, observed, [train])

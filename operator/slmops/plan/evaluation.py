"""What is measured of a made model: what the spec names, else what suits the task; and in any case what a gate needs."""

from collections.abc import Mapping, Sequence

from slmops import contract
from slmops.api.evaluation import Evaluation, QualityGate
from slmops.api.quantizedmodel import VariantGate
from slmops.api.sources import DataSource
from slmops.contract import Metric, Task
from slmops.plan.sources import Sources

WORDS: Mapping[Task, tuple[Metric, ...]] = {
    "Generation": (Metric.ACCURACY, Metric.F1, Metric.BLEU, Metric.ROUGE),
    "Classification": (Metric.ACCURACY, Metric.F1),
    "Extraction": (Metric.ACCURACY, Metric.F1),
    "Summarization": (Metric.F1, Metric.BLEU, Metric.ROUGE),
}
"""What is asked of the words of an answer where the spec does not say."""
ALWAYS = (Metric.PERPLEXITY, Metric.INFERENCE_TIME, Metric.TIME_TO_FIRST_TOKEN, Metric.PEAK_MEMORY)
"""The same whatever an answer is."""
COMPARED = {
    "InferenceTimeReduction": Metric.INFERENCE_TIME,
    "PeakMemoryReduction": Metric.PEAK_MEMORY,
    "PerplexityIncrease": Metric.PERPLEXITY,
}
"""What a comparison is made from, where that is not measured in any case."""


def evaluation(
    spec: Evaluation, gates: Sequence[QualityGate | VariantGate], task: Task, sources: Sources,
    compare: Mapping[str, contract.Source] | None = None,
) -> contract.Evaluation:  # fmt: skip
    """What is measured at the end."""
    return contract.Evaluation(
        data=sources.data(spec.data) if spec.data else None,
        samples=spec.samples,
        max_new_tokens=spec.max_new_tokens,
        metrics=_metrics(spec, gates, task),
        task=task,
        compare=dict(compare or {}),
    )


def _metrics(spec: Evaluation, gates: Sequence[QualityGate | VariantGate], task: Task) -> tuple[Metric, ...]:
    """In the order of ``Metric``, so that an order in a spec makes no other Job."""
    wished = {Metric(name) for name in spec.metrics} or {*WORDS[task], *ALWAYS}
    needed = {COMPARED.get(gate.metric, gate.metric) for gate in gates}
    return tuple(metric for metric in Metric if metric in wished | needed | {Metric.EXACT_MATCH})


def task_of(data: DataSource | None) -> Task:
    """What the answers of a data set are, where the spec has no task."""
    return "Classification" if data is not None and data.format == "Classification" else "Generation"

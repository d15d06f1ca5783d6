"""Rules of a FineTune that is measured by plain texts: they ask nothing, so no answer can be judged."""

from slmops.api.base import Rule

MEASURED = ["Perplexity", "WeightBytes", "WeightsReduction", "BaseAccuracyRetained"]
"""What a gate can be on where nothing is answered."""
REMEDY = "give evaluation.data records of another format"


def _text(data: str) -> str:
    """Whether the held-out part of these data are plain texts."""
    return f"(has({data}.validation) ? {data}.validation.format : {data}.train.format) == 'Text'"


def _measured(owner: str) -> str:
    """Whether the figures are those of plain texts: no other records are named for them. ``owner`` has data."""
    return f"(!has({owner}.evaluation) || !has({owner}.evaluation.data)) && {_text(f'{owner}.data')}"


def _metrics(owner: str) -> str:
    at = f"{owner}.evaluation"
    return f"(!has({at}) || !has({at}.metrics) || {at}.metrics.all(m, m == 'Perplexity'))"


def _gates(owner: str) -> str:
    return f"(!has({owner}.gates) || {owner}.gates.all(g, g.metric in {MEASURED}))"


TEXTS = (
    Rule(f"!has(self.data) || !({_measured('self')}) || {_metrics('self')}",
         f"of format Text Perplexity alone is measured, there is no answer to judge: {REMEDY}", "evaluation.metrics"),
    Rule(f"!has(self.data) || !({_measured('self')}) || {_gates('self')}",
         f"of format Text a gate can be on {', '.join(MEASURED)}, there is no answer to judge: {REMEDY}", "gates"),
    Rule("!has(self.data) || !has(self.search) || !has(self.search.objective)"
         " || self.search.objective.metric == 'evalLoss' || !(has(self.data.validation)"
         f" ? self.data.validation.format == 'Text' : {_measured('self')})",
         "trials are compared by records of format Text, which have no answer to match: use metric evalLoss, or give"
         " data.validation another format", "search.objective.metric"),
    Rule(f"!has(self.adapters) || self.adapters.all(a, !({_measured('a')})"
         f" || ((has(a.evaluation) ? {_metrics('a')} : {_metrics('self')})"
         f" && (has(a.gates) ? {_gates('a')} : {_gates('self')})))",
         "of an adapter's records of format Text Perplexity alone is measured, there is no answer to judge: leave other"
         " metrics and gates out, or give adapters[].evaluation.data records of another format", "adapters"),
)  # fmt: skip
"""Rules of a spec with data or adapters."""

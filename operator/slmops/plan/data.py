"""Filters of a data set, as a run is told of them."""

from slmops import contract
from slmops.api.data import Filters, LabellingFilters


def filters(spec: Filters, labels: list[str] | None = None) -> contract.Filters:
    """``labels``: those that the data set itself declares; the filter's own go before."""
    balance = spec.balance
    return contract.Filters(
        deduplicate=spec.deduplicate,
        near_duplicates=spec.near_duplicates,
        min_tokens=spec.min_tokens,
        max_tokens=spec.max_tokens,
        agreement=spec.agreement if isinstance(spec, LabellingFilters) else None,
        labels=tuple(spec.labels or labels or ()),
        balance=contract.Balance(per=balance.per, maximum=balance.maximum) if balance else None,
    )

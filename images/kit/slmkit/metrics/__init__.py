"""What answers are worth, and how sure that is: figures of a model from what it said, with 95 % confidence intervals."""

from slmkit.metrics.measured import Measured, compared
from slmkit.metrics.scored import judged, scored

__all__ = ["Measured", "compared", "judged", "scored"]

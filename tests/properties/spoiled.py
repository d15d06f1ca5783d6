"""What somebody else may have written into a status, into a Job's annotations and into a pod's times."""

from hypothesis import strategies as st

from slmops.state import ANNOTATION_BUDGET, ANNOTATION_GPUS, ANNOTATION_NODE, ANNOTATION_RETRY
from tests.unit.builders import UNREADABLE

SPOILED = [
    {},
    {"phase": "Succeeded", "observedGeneration": 999, "evaluation": {"model": {"ExactMatch": 2}}},
    {"conditions": [{"type": "Succeeded", "status": "True", "reason": "Trust", "observedGeneration": 9,
                     "lastTransitionTime": "never"}, {"type": "Odd", "status": "Unknown", "reason": "",
                                                      "observedGeneration": -1, "lastTransitionTime": ""}]},
    *({"retrain": {"why": why, "at": at}} for why, at in (("", "never"), ("x" * 5000, "0000-01-01T00:00:00Z"))),
    *({"cost": {"gpuHours": hours, "nodeHours": hours, "amount": amount, "currency": "EUR",
                "attempts": [{"pod": f"p{number}", "gpus": whole, "start": time, "end": end}
                             for number, time in enumerate((*UNREADABLE, "2026-03-01T11:00:00Z"))
                             for end in (time, None)],
                "gone": {"gpuSeconds": whole, "podSeconds": whole}}}
      for hours, whole, amount in ((1e308, 2**63 - 1, "lots"), (-1e308, -(2**63), "NaN"), (5e-324, 3, "9" * 99))),
]  # fmt: skip
"""Statuses that somebody else wrote, each within the CRD's schema."""
SPOILED_ANNOTATIONS = {
    ANNOTATION_GPUS: st.sampled_from(["abc", "", "-1", "1.5", "2", "9" * 5000, "\u0661"]),
    ANNOTATION_RETRY: st.text(max_size=5),
    ANNOTATION_BUDGET: st.text(max_size=5),
    ANNOTATION_NODE: st.text(max_size=5),
}
"""Annotations of a Job, as anybody who may edit it can leave them."""
spoiled_annotations = st.fixed_dictionaries({}, optional=SPOILED_ANNOTATIONS)
times = st.sampled_from([None, None, "2026-03-01T11:00:00Z", "2026-03-01T11:00:00.5+02:00", *UNREADABLE])

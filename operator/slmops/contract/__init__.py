"""What the operator and the container images say to each other, and nothing else.

The operator writes one of the ``*Run`` models as JSON into a ConfigMap; the image reads it from the single path it
gets as its argument. The image answers with a ``Report`` in its termination message and, while it runs, with
``Progress`` on ``GET /progress``. Images import this package and nothing else of the operator, so it depends on
pydantic alone. Whatever comes back from a pod is untrusted: every text and number of ``report`` is bounded.
"""

# ruff: noqa: F403, F405  (one name to import from, a module for each run)
from typing import Annotated

from pydantic import Field

from slmops.contract.base import *
from slmops.contract.bench import *
from slmops.contract.compare import *
from slmops.contract.edge import *
from slmops.contract.filters import *
from slmops.contract.index import *
from slmops.contract.join import *
from slmops.contract.keyless import *
from slmops.contract.label import *
from slmops.contract.monitoring import *
from slmops.contract.quantize import *
from slmops.contract.report import *
from slmops.contract.search import *
from slmops.contract.sources import *
from slmops.contract.train import *
from slmops.contract.trust import *

AnyRun = Annotated[
    LabelRun
    | TrainRun
    | SuggestRun
    | JoinRun
    | QuantizeRun
    | CompareRun
    | IndexRun
    | ServeRun
    | PullRun
    | BenchRun
    | SignRun
    | EvidenceRun
    | VerifyRun,
    Field(discriminator="type"),
]

"""What Prometheus sees of the runtime. Base units, one prefix, no label that a client can choose."""

import resource
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

disable_created_metrics()  # a second series for each, of no use to anybody here
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Durations(Collector):
    """A histogram of seconds that takes in many at once: one for each token of an answer, between two requests."""

    def __init__(self, name: str, help: str, registry: CollectorRegistry) -> None:
        self._name, self._help = name, help
        self._counts = [0] * (len(SECONDS) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()
        registry.register(self)

    def add(self, seconds: Sequence[float]) -> None:
        """Count them."""
        with self._lock:
            for each in seconds:
                self._counts[bisect_left(SECONDS, each)] += 1
            self._sum += sum(seconds)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What Prometheus reads."""
        with self._lock:
            counts, total = list(accumulate(self._counts)), self._sum
        bounds: Iterable[str] = (*(str(float(bound)) for bound in SECONDS), "+Inf")
        yield HistogramMetricFamily(
            self._name, self._help, buckets=list(zip(bounds, counts, strict=True)), sum_value=total
        )


class Metrics:
    """All metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        make = {"registry": self.registry}
        self.first_token = Durations(
            "slmops_runtime_time_to_first_token_seconds", "From request to first token.", **make
        )
        self.inter_token = Durations("slmops_runtime_inter_token_seconds", "Between two tokens.", **make)
        self.request = Durations("slmops_runtime_request_seconds", "From request to last token.", **make)
        self.tokens = Counter("slmops_runtime_generated_tokens_total", "Tokens generated.", **make)
        self.prompt_tokens = Counter("slmops_runtime_prompt_tokens_total", "Tokens read.", **make)
        self.requests = Counter("slmops_runtime_requests_total", "Answers by HTTP status.", ["code"], **make)
        self.answered = self.requests.labels("200")
        self.adapter_answers = Counter(
            "slmops_runtime_adapter_answers_total", "Answers by adapter; none for the model alone.", ["adapter"], **make,
        )  # fmt: skip
        self.queued = Gauge("slmops_runtime_queue_length", "Requests that wait.", **make)
        self.running = Gauge("slmops_runtime_requests_in_flight", "Requests that are answered now.", **make)
        resident = Gauge("slmops_runtime_resident_memory_bytes", "Memory in use.", **make)
        resident.set_function(resident_bytes)
        peak = Gauge("slmops_runtime_peak_memory_bytes", "Most memory in use since the start.", **make)
        peak.set_function(peak_bytes)


def resident_bytes() -> float:
    """Memory in use now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * resource.getpagesize())


def peak_bytes() -> float:
    """Most memory in use so far."""
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)

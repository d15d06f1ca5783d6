"""What Prometheus sees of the runtime. Base units, one prefix, no label that a client can choose."""

import resource
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # a second series for each, of no use to anybody here
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """All metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        make = {"registry": self.registry}
        self.first_token = Histogram("slmops_runtime_time_to_first_token_seconds", "From request to first token.",
                                     buckets=SECONDS, **make)  # fmt: skip
        self.inter_token = Histogram(
            "slmops_runtime_inter_token_seconds", "Between two tokens.", buckets=SECONDS, **make
        )
        self.request = Histogram(
            "slmops_runtime_request_seconds", "From request to last token.", buckets=SECONDS, **make
        )
        self.tokens = Counter("slmops_runtime_generated_tokens_total", "Tokens generated.", **make)
        self.prompt_tokens = Counter("slmops_runtime_prompt_tokens_total", "Tokens read.", **make)
        self.requests = Counter("slmops_runtime_requests_total", "Answers by HTTP status.", ["code"], **make)
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

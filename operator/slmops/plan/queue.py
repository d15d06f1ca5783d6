"""Kueue's contract for plain Jobs (kueue.sigs.k8s.io, "Run A Kubernetes Job"): a Job that names its LocalQueue in a label
is made suspended. Kueue alone lets it start, and suspends it again to preempt it.

The operator makes a Job once and never applies it again, so nobody argues about who owns ``suspend``.
"""

from slmops.state import LABEL_QUEUE, Manifest


def in_queue(job: Manifest, queue: str | None) -> Manifest:
    """The Job as its queue wants it; unchanged without one."""
    if queue is None:
        return job
    metadata, spec = job["metadata"], job["spec"]
    return job | {
        "metadata": metadata | {"labels": metadata["labels"] | {LABEL_QUEUE: queue}},
        "spec": spec | {"suspend": True},
    }

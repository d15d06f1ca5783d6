"""A training on several nodes: an Indexed Job with a pod for each rank, and a headless Service that names them.

Rank 0 alone publishes and reports, so the Job has succeeded when it has; what the others wait for is over then. A rank that
is lost breaks the connections of the others: they end too, with an exit code that counts as no failure, and all of them
meet again in new pods and go on from the checkpoint.
"""

from slmops import contract
from slmops.state import JOB_NAME_LABEL, LEADER, Manifest


def spread(job: Manifest, nodes: int) -> None:
    """Make a Job of so many pods, one a node, that know each other by name: ``<job>-<rank>.<job>``."""
    name = job["metadata"]["name"]
    job["spec"] |= {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "successPolicy": {"rules": [{"succeededIndexes": LEADER}]},
    }
    together = {"labelSelector": {"matchLabels": {JOB_NAME_LABEL: name}}, "topologyKey": "kubernetes.io/hostname"}
    job["spec"]["template"]["spec"] |= {
        "subdomain": name,
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [together]}},
    }


def meeting_place(job: Manifest) -> Manifest:
    """The headless Service: pods are found before they are ready, since they become ready by finding each other."""
    meta = {key: job["metadata"][key] for key in ("name", "namespace", "labels", "ownerReferences")}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {JOB_NAME_LABEL: meta["name"]},
            "ports": [{"name": "rendezvous", "port": contract.RENDEZVOUS_PORT, "protocol": "TCP"}],
        },
    }

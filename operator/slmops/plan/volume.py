"""The volume that outlives the pods of a Job: what it is called, how large it is, and where the pod finds it.

It is told apart by what its content is good for and not by the whole of its Job: more memory for a training is another
Job, which goes on from the checkpoints of the one before. A teacher's answers are good for every labelling of the
resource, since each is kept under all that shapes it; so they stay as long as the resource.
"""

from typing import Any

from slmops import contract
from slmops.api.base import quantity
from slmops.api.run import Volume
from slmops.state import Manifest, digest8


def claim_name(job: str, run: contract.Run, wish: Any, wanted: Volume) -> str:
    """The claim of a Job that has this name. ``wish``: what the run makes, with nothing of where it runs."""
    content = None if lasting(run) else wish
    return f"{job.rpartition('-')[0]}-{digest8([content, wanted.storage_class])}"


def lasting(run: contract.Run) -> bool:
    """Whether what the volume holds is of use once the Job has succeeded."""
    return isinstance(run, contract.LabelRun)


def grown(wanted: Manifest, live: Manifest) -> bool:
    """Whether the live claim is to be larger. Kubernetes makes none smaller."""
    try:
        asked, has = (quantity(claim["spec"]["resources"]["requests"]["storage"]) for claim in (wanted, live))
    except (KeyError, TypeError, ValueError):  # written by another hand, in a form that the schema does not have
        return False
    return asked > has


def claim(meta: Manifest, wanted: Volume, shared: bool = False) -> Manifest:
    """The claim, with this metadata. ``shared``: by pods on several nodes."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": meta,
        "spec": {
            "accessModes": ["ReadWriteMany" if shared else "ReadWriteOnce"],
            "resources": {"requests": {"storage": str(wanted.size)}},
            **({"storageClassName": wanted.storage_class} if wanted.storage_class is not None else {}),
        },
    }


def mounted(name: str) -> tuple[Manifest, Manifest]:
    """The volume and its mount in the pod."""
    return (
        {"name": "state", "persistentVolumeClaim": {"claimName": name}},
        {"name": "state", "mountPath": contract.STATE_DIR},
    )

"""The volume that outlives the pods of a Job: a claim by the Job's own name, and where the pod finds it."""

from slmops import contract
from slmops.api.run import Volume
from slmops.state import Manifest


def claim(meta: Manifest, wanted: Volume, shared: bool = False) -> Manifest:
    """The claim, with the metadata of its Job. ``shared``: by pods on several nodes."""
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

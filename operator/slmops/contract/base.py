"""Paths, media types and limits that both sides know, and the base of all messages with its bounded values."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

CONFIG_KEY = "run.json"
CONFIG_DIR = "/etc/slmops"
CONFIG_PATH = f"{CONFIG_DIR}/{CONFIG_KEY}"
WORK_DIR = "/work"
"""Writable scratch of every Job pod (an emptyDir); everything else of the root file system is read-only."""
STATE_DIR = "/state"
"""Where the volume of ``run.volume`` is mounted: it outlives the pod, and the next attempt of the same Job finds it."""
MODEL_DIR = "/models"
"""Where an image volume with a model image is mounted; its files lie at ``/models/models/<name>``."""
GRACE_SECONDS = 30
"""What a pod gets to end once it is told to stop, …"""
GRACE_SECONDS_WITH_VOLUME = 120
"""… and where it has a step to end and a checkpoint to write."""
PROGRESS_PORT = 9090
RENDEZVOUS_PORT = 29400
"""Where the first pod of a training on several nodes waits for the others."""
REPORT_LIMIT = 4096
"""Bytes that the kubelet keeps of a termination message."""
TERMINATION_PATH = "/dev/termination-log"
DATASET_TYPE = "application/vnd.slmops.dataset.v1"
MODEL_TYPE = "application/vnd.slmops.model.v1"
ADAPTER_TYPE = "application/vnd.slmops.adapter.v1"
LOGS_TYPE = "application/vnd.slmops.logs.v1"
"""Files that TensorBoard reads."""
REPORT_TYPE = "application/vnd.slmops.report.v1"

LARGEST = 2**53 - 1
"""The largest whole number that every reader of JSON keeps exact; more of anything is a lie."""
Text = Annotated[str, Field(max_length=1024)]
Word = Annotated[str, Field(max_length=63)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Amount = Annotated[float, Field(ge=0, le=LARGEST)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Reference = Annotated[str, Field(max_length=512, pattern=r"^[^\s@]+@sha256:[0-9a-f]{64}$")]
"""``registry/repository@sha256:…``"""
Signer = Annotated[str, Field(max_length=1032, pattern=r"^(sha256:[0-9a-f]{64}|[!-~]{1,512} \([!-~]{1,512}\))$")]
"""Fingerprint of a key (SHA-256 of the public key in DER), or an identity and, in brackets, who vouched for it."""
Share = Annotated[float, Field(ge=0, le=1)]


class Message(BaseModel):
    """Base of all messages: unknown fields are ignored, so that an older image reads a newer operator's file."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Metric(StrEnum):
    """What an evaluation can be asked to measure, named once for API, operator and images. Bytes of weights, parameters
    and the number of records are always told."""

    EXACT_MATCH = "ExactMatch"
    ACCURACY = "Accuracy"
    F1 = "F1"
    BLEU = "BLEU"
    ROUGE = "ROUGE"
    PERPLEXITY = "Perplexity"
    INFERENCE_TIME = "InferenceTime"
    TIME_TO_FIRST_TOKEN = "TimeToFirstToken"  # noqa: S105  (a metric)
    PEAK_MEMORY = "PeakMemory"

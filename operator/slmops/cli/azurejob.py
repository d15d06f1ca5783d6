"""What an Azure ML distillation job may say, and where it stands in a Distillation: tables, and how values are read.

From azure-ai-ml (``DistillationJobSchema``, ``BaseJobSchema``, ``WorkspaceConnectionSchema``) and azureml-assets
(``assets/training/distillation``). Each field is in one of the tables, or has a function of its own in
``slmops.cli.azureml``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TASKS = {
    "nli": "NLI", "conversation": "Conversation", "nlu_qa": "NLUQuestionAnswering", "math": "Math",
    "summarization": "Summarization",
}  # fmt: skip
STUDENTS = {
    "Meta-Llama-3.1-8B-Instruct": "hf://meta-llama/Llama-3.1-8B-Instruct",
    "Phi-3-mini-4k-instruct": "hf://microsoft/Phi-3-mini-4k-instruct",
    "Phi-3-mini-128k-instruct": "hf://microsoft/Phi-3-mini-128k-instruct",
    "Phi-3.5-mini-instruct": "hf://microsoft/Phi-3.5-mini-instruct",
    "Phi-3.5-MoE-instruct": "hf://microsoft/Phi-3.5-MoE-instruct",
    "Phi-4-mini-instruct": "hf://microsoft/Phi-4-mini-instruct",
}
"""Where the models of Azure's registry that can be students are published for all."""
CONVERTED = {
    "type", "name", "data_generation_type", "data_generation_task_type", "teacher_model_endpoint_connection",
    "student_model", "training_data", "validation_data",
}  # fmt: skip
"""Fields that have functions of their own."""
LEFT_OUT = {
    "compute": "Azure does not pass it on either; nodes are named in spec.run.nodeSelector",
    "identity": "runs read sources and publish with the credentials that spec names: Secrets of the namespace",
    "outputs": "the student is published to spec.output.repository, and named by its digest",
    "resources": "in Azure the nodes that ask the teacher; name such in spec.labelling.nodeSelector and "
    "spec.labelling.resources, those that train, and their GPUs, in spec.run",
    "services": "a run opens no ports; its progress is in status, its log in kubectl logs",
    **dict.fromkeys(
        ("description", "display_name", "experiment_name", "properties", "tags"),
        "what people are to find it by goes into metadata.labels and metadata.annotations",
    ),
    **dict.fromkeys(
        ("creation_context", "id", "log_files", "status"), "written by Azure about a run, and not read from a file"
    ),
}
"""Fields without a counterpart, and what a person should know about them."""
SILENT = ("$schema",)
"""For editors."""
CONNECTION = {"name", "endpoint", "target", "api_key", "credentials"}
"""Fields of the teacher's connection that are read."""
CONNECTION_LEFT_OUT = {"creation_context", "description", "id", "is_shared", "metadata", "tags", "type"}
"""Fields of it that mean something in its workspace alone."""
BEARERS = {"apikey", "pat"}
"""Types of a connection's credentials that a server takes as a bearer token."""


@dataclass(frozen=True)
class Field:
    """A field of the job and its counterpart."""

    azure: str
    ours: str
    """Below spec; what stands in brackets is for people."""
    convert: Callable[[Any], Any]
    default: Any = None
    """Azure's, where it differs from ours; None: leave it to us."""


def number(value: Any) -> float:
    """A number; hyperparameters are often written as text."""
    if isinstance(value, bool):
        raise ValueError("a number is expected")
    return float(value)


def whole(value: Any) -> int:
    """A whole number."""
    if number(value) != int(number(value)):
        raise ValueError("a whole number is expected")
    return int(number(value))


def flag(value: Any) -> bool:
    """True or false; the components take them as text."""
    if str(value).lower() not in ("true", "false"):
        raise ValueError("true or false is expected")
    return str(value).lower() == "true"


def texts(value: Any) -> list[str]:
    """One text, or a list of them."""
    return [str(text) for text in (value if isinstance(value, list) else [value])]


UNSAID_TOKENS, SUMMARY_TOKENS = 128, 1024
"""Azure's longest answer where the job says none; for summaries it takes the other one, even where a job says 128."""
INFERENCE, REQUESTS = "teacher_model_settings.inference_parameters", "teacher_model_settings.endpoint_request_settings"
FIELDS = (
    Field(f"{INFERENCE}.temperature", "teacher.sampling.temperature", number, 0.2),
    Field(f"{INFERENCE}.top_p", "teacher.sampling.topP", number, 0.1),
    Field(f"{INFERENCE}.max_tokens", "teacher.sampling.maxTokens", whole, UNSAID_TOKENS),
    Field(f"{INFERENCE}.max_new_tokens", "teacher.sampling.maxTokens", whole),
    Field(f"{INFERENCE}.frequency_penalty", "teacher.sampling.frequencyPenalty", number),
    Field(f"{INFERENCE}.presence_penalty", "teacher.sampling.presencePenalty", number),
    Field(f"{INFERENCE}.stop", "teacher.sampling.stop", texts),
    Field(f"{REQUESTS}.request_batch_size", "teacher.endpoint.concurrency", whole, 10),
    Field(f"{REQUESTS}.min_endpoint_success_ratio", "teacher.endpoint.minSuccessRatio", number),
    Field("prompt_settings.enable_chain_of_thought", "teacher.prompt.chainOfThought", flag),
    Field("prompt_settings.enable_chain_of_density", "teacher.prompt.chainOfDensity", flag),
    Field("prompt_settings.max_len_summary", "teacher.prompt.maxSummaryLength", whole),
    Field("hyperparameters.num_train_epochs", "training.epochs", whole, 1),
    Field("hyperparameters.per_device_train_batch_size", "training.batchSize", whole, 1),
    Field("hyperparameters.learning_rate", "training.learningRate", number, 3e-4),
)
"""The settings that are carried over one to one."""
ALWAYS = (
    ("data.filters.deduplicate", False),
    ("student.method", "LoRA"),
    ("student.lora.rank", 8),
    ("student.lora.alpha", 128),
    ("student.lora.dropout", 0.0),
    ("training.weightDecay", 0.1),
    ("training.warmupRatio", 0.0),
    ("training.maxSequenceLength", 8192),
)
"""What Azure's pipeline (``oss_distillation_pipeline``) fixes and no job can change, below spec. Where it is our default,
too, it is left to us: scheduler, gradientAccumulation, seed. So is precision, 16 bits there: ours is that where it is fast,
and a finer one elsewhere."""

"""An Azure ML distillation job -> a Distillation. Pure: a mapping in, a manifest and remarks out.

Fields and defaults are those of the job's schema (azure-ai-ml, ``DistillationJob``) and of the components that carry it
out (azureml-assets, ``oss_distillation_*``). What a job does not say is written out with Azure's default, not with ours:
the manifest asks for what the job would have done. docs/distillation.md has the table for people.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from slmops.api.base import API_VERSION
from slmops.api.distillation import Distillation

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
SILENT = ("$schema", "type", "name", "display_name", "experiment_name", "tags", "properties")
"""Fields about the job's place in Azure, or its name, that mean nothing elsewhere."""


class Refused(Exception):  # noqa: N818  (a message for the user)
    """The job cannot be converted. The message begins with the field."""


@dataclass(frozen=True)
class Wish:
    """What the user says that the job cannot."""

    repository: str
    """OCI repository for the results."""
    student: str | None = None
    train: str | None = None
    validation: str | None = None
    secret: str | None = None
    namespace: str | None = None


@dataclass
class Converted:
    """The manifest, and what a person should know about it."""

    manifest: dict[str, Any]
    remarks: list[str] = field(default_factory=list)


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


INFERENCE, REQUESTS = "teacher_model_settings.inference_parameters", "teacher_model_settings.endpoint_request_settings"
FIELDS = (
    Field(f"{INFERENCE}.temperature", "teacher.sampling.temperature", number, 0.2),
    Field(f"{INFERENCE}.top_p", "teacher.sampling.topP", number, 0.1),
    Field(f"{INFERENCE}.max_tokens", "teacher.sampling.maxTokens", whole, 128),
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


def convert(job: Mapping[str, Any], wish: Wish) -> Converted:
    """The Distillation that does what the job does. Raises Refused."""
    remarks: list[str] = []
    if job.get("type", "distillation") != "distillation":
        raise Refused(f"type: distillation is expected, found {job['type']}")
    if (kind := job.get("data_generation_type", "label_generation")) != "label_generation":
        raise Refused(
            f"data_generation_type: {kind} has no counterpart, only label_generation has: bring your own prompts"
        )
    task = _task(job)
    spec: dict[str, Any] = {"teacher": {"endpoint": _teacher(job, wish, remarks)}}
    spec |= {"student": {"model": {"uri": _student(job, wish)}}, "task": task, "data": _data(job, wish)}
    settings = _flat(job)
    for known in FIELDS:
        value = settings.pop(known.azure, None)
        if value is None and (value := known.default) is None:
            continue
        if known.azure.endswith("max_tokens") and f"{INFERENCE}.max_new_tokens" in settings:
            continue
        try:
            _put(spec, known.ours, known.convert(value))
        except (ValueError, TypeError) as error:
            raise Refused(f"{known.azure}: {error}") from None
    if settings:
        raise Refused(f"{min(settings)}: no counterpart; remove it")
    _check_prompt(spec["teacher"].get("prompt", {}), task, remarks)
    spec["output"] = {"repository": wish.repository}
    _left_out(job, remarks)
    metadata = {"name": _name(job)} | ({"namespace": wish.namespace} if wish.namespace else {})
    manifest = {"apiVersion": API_VERSION, "kind": "Distillation", "metadata": metadata, "spec": spec}
    _check(manifest)
    return Converted(manifest, remarks)


def _task(job: Mapping[str, Any]) -> str:
    said = job.get("data_generation_task_type")
    task = TASKS.get(str(said).lower())
    if task is None:
        raise Refused(f"data_generation_task_type: one of {', '.join(TASKS)} is expected, found {said}")
    return task


def _teacher(job: Mapping[str, Any], wish: Wish, remarks: list[str]) -> dict[str, Any]:
    where = "teacher_model_endpoint_connection"
    connection = job.get(where)
    if not isinstance(connection, Mapping) or not isinstance(connection.get("endpoint"), str):
        raise Refused(f"{where}.endpoint: the address of the teacher is expected; a connection by name alone says nothing "
                      "outside of its workspace")  # fmt: skip
    url = connection["endpoint"].rstrip("/")
    for ending in ("/chat/completions", "/completions"):
        url = url.removesuffix(ending)
    if not url.endswith("/v1"):
        url += "/v1"
    name = str(connection.get("name") or "teacher")
    secret = wish.secret or name.lower()
    if "api_key" in connection or wish.secret:
        remarks.append(f"The teacher's key is read from a Secret: kubectl create secret generic {secret} "
                       "--from-literal=token=KEY")  # fmt: skip
    keyed = {"credentials": {"secret": secret}} if "api_key" in connection or wish.secret else {}
    return {"url": url, "model": name} | keyed


def _student(job: Mapping[str, Any], wish: Wish) -> str:
    said = job.get("student_model")
    path = str(said.get("path", "") if isinstance(said, Mapping) else said or "")
    if wish.student:
        return wish.student
    name = path.partition("/models/")[2].partition("/")[0] or path
    if name not in STUDENTS:
        raise Refused(f"student_model: no public address of {path or 'nothing'} is known; name one with --student, for "
                      "example hf://microsoft/Phi-4-mini-instruct")  # fmt: skip
    return STUDENTS[name]


def _data(job: Mapping[str, Any], wish: Wish) -> dict[str, Any]:
    data = {}
    for ours, azure, named in (
        ("train", "training_data", wish.train),
        ("validation", "validation_data", wish.validation),
    ):
        said = job.get(azure)
        path = str(said.get("path", "") if isinstance(said, Mapping) else said or "")
        if named is None and not path:
            if ours == "train":
                raise Refused(f"{azure}: the prompts are expected; name them with --train")
            continue
        if named is None and not path.startswith(("https://", "http://")):
            raise Refused(f"{azure}.path: {path} cannot be read from a cluster; publish it and name it with --{ours}, for "
                          "example oci://registry.example/data/prompts:v1")  # fmt: skip
        data[ours] = {"uri": named or path, "format": "Messages"}
    return data


def _flat(job: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by their dotted names."""
    found: dict[str, Any] = {}

    def walk(part: Any, where: str, depth: int) -> None:
        if part is None:
            return
        if not isinstance(part, Mapping):
            raise Refused(f"{where}: a mapping is expected")
        for key, value in part.items():
            below = f"{where}.{key}"
            if depth and below in (INFERENCE, REQUESTS):
                walk(value, below, depth - 1)
            else:
                found[below] = value

    walk(job.get("teacher_model_settings"), "teacher_model_settings", 1)
    for group in ("prompt_settings", "hyperparameters"):
        walk(job.get(group), group, 0)
    return {key: value for key, value in found.items() if value is not None}


def _put(spec: dict[str, Any], path: str, value: Any) -> None:
    *way, last = path.split(".")
    for key in way:
        spec = spec.setdefault(key, {})
    spec[last] = value


def _check_prompt(prompt: dict[str, Any], task: str, remarks: list[str]) -> None:
    """The rules that Azure and the CRD have alike."""
    if prompt.get("chainOfThought") and task in ("Conversation", "Summarization"):
        raise Refused(f"prompt_settings.enable_chain_of_thought: not for data_generation_task_type {task.lower()}")
    if prompt.get("chainOfDensity") and task != "Summarization":
        raise Refused("prompt_settings.enable_chain_of_density: for data_generation_task_type summarization only")
    if "maxSummaryLength" in prompt and not prompt.get("chainOfDensity"):
        del prompt["maxSummaryLength"]
        remarks.append(
            "Left out: prompt_settings.max_len_summary, which has a meaning with enable_chain_of_density only"
        )


def _left_out(job: Mapping[str, Any], remarks: list[str]) -> None:
    known = {part.azure.partition(".")[0] for part in FIELDS} | {
        "data_generation_type", "data_generation_task_type", "teacher_model_endpoint_connection", "student_model",
        "training_data", "validation_data", "description", "outputs", "resources", *SILENT,
    }  # fmt: skip
    if unknown := sorted(set(job) - known):
        raise Refused(f"{unknown[0]}: no field of a distillation job; remove it")
    if job.get("resources"):
        remarks.append(
            "Left out: resources; name the node and its GPUs in spec.run.nodeSelector and spec.run.resources"
        )
    if job.get("outputs"):
        remarks.append("Left out: outputs; the student is published to spec.output.repository, and named by its digest")


def _name(job: Mapping[str, Any]) -> str:
    """A name that Kubernetes takes, of the job's own."""
    said = str(job.get("name") or job.get("display_name") or "distillation").lower()
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in said)
    return kept.lstrip("-0123456789")[:40].rstrip("-") or "distillation"


def _check(manifest: dict[str, Any]) -> None:
    """Refuse here what the API server would refuse, in the words of the job's fields."""
    try:
        Distillation.model_validate(
            manifest | {"metadata": {"uid": "", "namespace": "default", **manifest["metadata"]}}
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        azure = {f"spec.{known.ours}": known.azure for known in reversed(FIELDS)}
        raise Refused(f"{azure.get(where, where)}: {first['msg'].lower()}") from None

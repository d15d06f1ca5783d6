"""An Azure ML distillation job -> a Distillation. Pure: a mapping in, a manifest and remarks out.

Fields and defaults are those of the job's schema (azure-ai-ml, ``DistillationJob``) and of the components that carry it
out (azureml-assets, ``oss_distillation_*``). What a job does not say is written out with Azure's default, not with ours:
the manifest asks for what the job would have done. docs/distillation.md has the table for people.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from slmops.api.base import API_VERSION
from slmops.api.distillation import Distillation
from slmops.cli.azurejob import (
    ALWAYS,
    BEARERS,
    CONNECTION,
    CONNECTION_LEFT_OUT,
    CONVERTED,
    FIELDS,
    INFERENCE,
    LEFT_OUT,
    REQUESTS,
    SILENT,
    STUDENTS,
    SUMMARY_TOKENS,
    TASKS,
    UNSAID_TOKENS,
)  # fmt: skip


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
    _as_azure_does(spec, job, remarks)
    _check_prompt(spec["teacher"].get("prompt", {}), task, remarks)
    spec["output"] = {"repository": wish.repository}
    _left_out(job, remarks)
    metadata = {"name": _name(job)} | ({"namespace": wish.namespace} if wish.namespace else {})
    manifest = {"apiVersion": API_VERSION, "kind": "Distillation", "metadata": metadata, "spec": spec}
    _check(manifest)
    return Converted(manifest, remarks)


def _as_azure_does(spec: dict[str, Any], job: Mapping[str, Any], remarks: list[str]) -> None:
    """What Azure's pipeline does whatever the job says."""
    for path, value in ALWAYS:
        _put(spec, path, value)
    epochs, sampling = spec["training"]["epochs"], spec["teacher"]["sampling"]
    if epochs > 1:  # more misses than that cannot be: nothing is ended, and the best epoch is what is published
        _put(spec, "training.earlyStopping.patience", epochs)
    remarks.append("LoRA with Azure's rank and alpha, on all linear layers; which ones Azure takes is said by files of its "
                   "registry's model: see spec.student.lora.targetModules")  # fmt: skip
    if spec["task"] == "Summarization" and sampling["maxTokens"] == UNSAID_TOKENS:
        sampling["maxTokens"] = SUMMARY_TOKENS
        remarks.append(f"{INFERENCE}.max_tokens: {SUMMARY_TOKENS} for summaries, as in Azure, where a job says "
                       f"{UNSAID_TOKENS} or nothing")  # fmt: skip
    if spec["task"] == "Conversation":
        remarks.append("Of a conversation the last answer alone is asked for and learned, after the turns of the record; "
                       "Azure asks for every answer and puts them all into what is learned: give a record for each turn "
                       "to have them all")  # fmt: skip


def _task(job: Mapping[str, Any]) -> str:
    said = job.get("data_generation_task_type")
    task = TASKS.get(str(said).lower())
    if task is None:
        raise Refused(f"data_generation_task_type: one of {', '.join(TASKS)} is expected, found {said}")
    return task


def _teacher(job: Mapping[str, Any], wish: Wish, remarks: list[str]) -> dict[str, Any]:
    where = "teacher_model_endpoint_connection"
    connection = job.get(where)
    said = connection.get("endpoint") or connection.get("target") if isinstance(connection, Mapping) else None
    if not isinstance(connection, Mapping) or not isinstance(said, str):
        raise Refused(f"{where}.endpoint: the address of the teacher is expected (target in a workspace's connection); a "
                      "connection by name alone says nothing outside of its workspace")  # fmt: skip
    if unknown := sorted(set(connection) - CONNECTION - CONNECTION_LEFT_OUT):
        raise Refused(f"{where}.{unknown[0]}: no field of a connection; remove it")
    url = said.rstrip("/")
    for ending in ("/chat/completions", "/completions"):
        url = url.removesuffix(ending)
    if not url.endswith("/v1"):
        url += "/v1"
    name = str(connection.get("name") or "teacher")
    secret = wish.secret or _spelled(name, "teacher")
    keyed = _keyed(connection) or bool(wish.secret)
    if keyed:
        remarks.append(f"The teacher's key is read from a Secret: kubectl create secret generic {secret} "
                       "--from-literal=token=KEY")  # fmt: skip
    kind = _kind(connection)
    if kind and kind.lower().replace("_", "") not in BEARERS:
        remarks.append(f"{where}.credentials of type {kind} are known to Azure alone: servers are asked with a bearer "
                       "token, which is what belongs into that Secret")  # fmt: skip
    _tell({f"{where}.{key}" for key in CONNECTION_LEFT_OUT & set(connection) - {"type"}}, "its workspace's", remarks)
    return {"url": url, "model": name} | ({"credentials": {"secret": secret}} if keyed else {})


def _keyed(connection: Mapping[str, Any]) -> bool:
    """Whether the teacher wants to know who asks."""
    return bool("api_key" in connection or _kind(connection))


def _kind(connection: Mapping[str, Any]) -> str:
    """Type of the connection's credentials; empty without any. Their values are not looked at."""
    said = connection.get("credentials")
    if said is None:
        return ""
    if not isinstance(said, Mapping) or not isinstance(said.get("type"), str):
        raise Refused("teacher_model_endpoint_connection.credentials.type: expected, for example api_key")
    return "" if said["type"].lower() == "none" else said["type"]


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
    known = {part.azure.partition(".")[0] for part in FIELDS} | CONVERTED | set(LEFT_OUT) | set(SILENT)
    if unknown := sorted(set(job) - known):
        raise Refused(f"{unknown[0]}: no field of a distillation job; remove it")
    said = {key for key in LEFT_OUT if job.get(key)}
    for why in dict.fromkeys(LEFT_OUT.values()):
        _tell({key for key in said if LEFT_OUT[key] == why}, why, remarks)


def _tell(fields: Iterable[str], why: str, remarks: list[str]) -> None:
    if named := ", ".join(sorted(fields)):
        remarks.append(f"Left out: {named}; {why}")


def _name(job: Mapping[str, Any]) -> str:
    """A name that Kubernetes takes, of the job's own."""
    return _spelled(str(job.get("name") or job.get("display_name") or ""), "distillation")


def _spelled(said: str, otherwise: str) -> str:
    """A name in letters that Kubernetes takes."""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in said.lower())
    return kept.lstrip("-0123456789")[:40].rstrip("-") or otherwise


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

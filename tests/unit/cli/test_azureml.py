"""``slmops convert azureml``: each field of an Azure ML distillation job ends in a field of ours, or is refused by name."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from demo.steps import ROOT
from slmops.__main__ import main
from slmops.api.crd import schema
from slmops.api.distillation import Distillation
from slmops.cli.azurejob import (
    ALWAYS,
    CONNECTION,
    CONNECTION_LEFT_OUT,
    FIELDS,
    INFERENCE,
    LEFT_OUT,
    REQUESTS,
    SILENT,
    TASKS,
)
from slmops.cli.azureml import Converted, Refused, Wish, convert

JOB: dict[str, Any] = {
    "$schema": "https://azuremlschemas.azureedge.net/latest/distillationJob.schema.json",
    "type": "distillation",
    "name": "Distill_Phi.4",
    "experiment_name": "distillation",
    "data_generation_type": "label_generation",
    "data_generation_task_type": "MATH",
    "teacher_model_endpoint_connection": {
        "type": "serverless", "name": "Llama-405B", "endpoint": "https://llama.eastus2.models.ai.azure.com",
        "api_key": "canary-k3y",
    },
    "student_model": "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/1",
    "training_data": {"type": "uri_file", "path": "https://data.example/train.jsonl"},
    "validation_data": {"type": "uri_file", "path": "https://data.example/held.jsonl"},
    "teacher_model_settings": {
        "inference_parameters": {"temperature": 0.1, "max_tokens": 100, "top_p": 0.95, "frequency_penalty": 0.5,
                                 "presence_penalty": -0.5, "stop": "END"},
        "endpoint_request_settings": {"request_batch_size": 5, "min_endpoint_success_ratio": 0.8},
    },
    "prompt_settings": {"enable_chain_of_thought": True, "enable_chain_of_density": False},
    "hyperparameters": {"learning_rate": "0.00002", "num_train_epochs": "3", "per_device_train_batch_size": "2"},
    "resources": {"instance_type": "Standard_D2_v2"},
    "outputs": {"registered_model": {"type": "mlflow_model", "name": "phi-distilled"}},
}  # fmt: skip
SCHEMA = (  # of azure-ai-ml 1.35: DistillationJobSchema and all that it inherits from
    "$schema", "compute", "creation_context", "data_generation_task_type", "data_generation_type", "description",
    "display_name", "experiment_name", "hyperparameters", "id", "identity", "log_files", "name", "outputs",
    "prompt_settings", "properties", "resources", "services", "status", "student_model", "tags",
    "teacher_model_endpoint_connection", "teacher_model_settings", "training_data", "type", "validation_data",
)  # fmt: skip
CONNECTION_SCHEMA = (  # WorkspaceConnectionSchema and ServerlessConnectionSchema
    "api_key", "creation_context", "credentials", "description", "endpoint", "id", "is_shared", "metadata", "name", "tags",
    "target", "type",
)  # fmt: skip
WISH = Wish(repository="registry.example/slm/phi")


def changed(path: str, value: Any) -> dict[str, Any]:
    """The job with one field changed; None takes it away."""
    job = copy.deepcopy(JOB)
    *way, last = path.split(".")
    part = job
    for key in way:
        part = part.setdefault(key, {})
    if value is None:
        part.pop(last, None)
    else:
        part[last] = value
    return job


def spec_of(job: dict[str, Any], wish: Wish = WISH) -> dict[str, Any]:
    return dict(convert(job, wish).manifest["spec"])


def left_out(made: Converted) -> list[str]:
    """The fields that its remarks say are left out."""
    said = (remark.split(";")[0] for remark in made.remarks)
    return [words.removeprefix("Left out: ") for words in said if words.startswith("Left out: ")]


def test_a_whole_job() -> None:
    made = convert(JOB, WISH)
    assert made.manifest == {
        "apiVersion": "slmops.dev/v1alpha1",
        "kind": "Distillation",
        "metadata": {"name": "distill-phi-4"},
        "spec": {
            "teacher": {
                "endpoint": {
                    "url": "https://llama.eastus2.models.ai.azure.com/v1", "model": "Llama-405B",
                    "credentials": {"secret": "llama-405b"}, "concurrency": 5, "minSuccessRatio": 0.8,
                },
                "sampling": {"temperature": 0.1, "topP": 0.95, "maxTokens": 100, "frequencyPenalty": 0.5,
                             "presencePenalty": -0.5, "stop": ["END"]},
                "prompt": {"chainOfThought": True, "chainOfDensity": False},
            },
            "student": {"model": {"uri": "hf://microsoft/Phi-4-mini-instruct"}, "method": "LoRA",
                        "lora": {"rank": 8, "alpha": 128, "dropout": 0.0}},
            "task": "Math",
            "data": {"train": {"uri": "https://data.example/train.jsonl", "format": "Messages"},
                     "validation": {"uri": "https://data.example/held.jsonl", "format": "Messages"},
                     "filters": {"deduplicate": False}},
            "training": {"epochs": 3, "batchSize": 2, "learningRate": 2e-5, "weightDecay": 0.1, "warmupRatio": 0.0,
                         "maxSequenceLength": 8192, "earlyStopping": {"patience": 3}},
            "output": {"repository": "registry.example/slm/phi"},
        },
    }  # fmt: skip
    assert "create secret generic llama-405b" in made.remarks[0]
    assert left_out(made) == ["outputs", "resources", "experiment_name"]


def test_the_manifest_is_one_that_the_api_server_takes() -> None:
    """By the schema of the CRD, fields that it does not know too: nothing is lost on the way."""

    def closed(node: Any) -> Any:
        if isinstance(node, dict):
            return {k: closed(v) for k, v in node.items()} | (
                {"additionalProperties": False} if "properties" in node else {}
            )
        return [closed(part) for part in node] if isinstance(node, list) else node

    wanted = closed(schema(Distillation)["properties"]["spec"])
    jsonschema.Draft4Validator(wanted).validate(spec_of(JOB))


@pytest.mark.parametrize("known", FIELDS, ids=lambda known: known.azure)
def test_each_setting_has_a_counterpart_that_exists(known: Any) -> None:
    node = schema(Distillation)["properties"]["spec"]
    for part in known.ours.split("."):
        node = node["properties"][part]


def test_what_a_job_does_not_say_is_what_azure_does() -> None:
    job = {key: value for key, value in JOB.items() if not key.endswith("settings") and key != "hyperparameters"}
    spec = spec_of(job)
    assert spec["teacher"]["sampling"] == {"temperature": 0.2, "topP": 0.1, "maxTokens": 128}
    assert spec["teacher"]["endpoint"]["concurrency"] == 10
    assert spec["training"] == {"epochs": 1, "batchSize": 1, "learningRate": 3e-4, "weightDecay": 0.1, "warmupRatio": 0.0,
                                "maxSequenceLength": 8192}  # fmt: skip


def test_what_azures_pipeline_fixes_is_written_or_ours_by_default() -> None:
    """Its spec.yaml, version 0.0.10: apply_lora, lora_r, lora_alpha, lora_dropout, max_seq_length, weight_decay,
    warmup_steps, lr_scheduler_type, gradient_accumulation_steps, precision, seed, max_steps; metric_for_best_model."""
    job = Distillation.model_validate(
        convert(JOB, WISH).manifest | {"metadata": {"uid": "", "namespace": "", "name": ""}}
    )
    student, learns = job.spec.student, job.spec.training
    assert student.lora is not None
    assert (student.method, student.lora.rank, student.lora.alpha, student.lora.dropout) == ("LoRA", 8, 128, 0)
    assert (learns.max_sequence_length, learns.weight_decay, learns.warmup_ratio) == (8192, 0.1, 0)
    assert (learns.scheduler, learns.gradient_accumulation, learns.precision, learns.seed) == ("Cosine", 1, "Auto", 42)
    assert (learns.max_steps, learns.packing) == (None, False)
    assert learns.early_stopping is not None
    assert learns.early_stopping.patience >= learns.epochs, "the best epoch is kept, and none is left out"
    assert not job.spec.data.filters.deduplicate


@pytest.mark.parametrize(("said", "tokens"), [(None, 1024), (128, 1024), (129, 129)])
def test_summaries_may_be_longer(said: int | None, tokens: int) -> None:
    job = changed(f"{INFERENCE}.max_tokens", said) | {
        "data_generation_task_type": "SUMMARIZATION",
        "prompt_settings": {},
    }
    made = convert(job, WISH)
    assert made.manifest["spec"]["teacher"]["sampling"]["maxTokens"] == tokens
    assert any("1024 for summaries" in remark for remark in made.remarks) == (tokens == 1024)


@pytest.mark.parametrize("field", SCHEMA)
def test_no_field_that_azures_schema_has_is_called_unknown(field: str) -> None:
    made = convert({field: "something"} | JOB, WISH)
    told = {part for named in left_out(made) for part in named.split(", ")}
    assert field not in LEFT_OUT or field in told


def test_a_remark_is_one_for_all_fields_of_its_kind() -> None:
    made = convert(JOB | {"id": "x", "status": "Failed", "compute": "azureml:gpu", "tags": {"a": "b"}}, WISH)
    assert left_out(made)[:1] == ["compute"]
    assert left_out(made)[-2:] == ["experiment_name, tags", "id, status"]


@pytest.mark.parametrize("address", ["endpoint", "target"])
@pytest.mark.parametrize(
    ("credentials", "keyed", "words"),
    [
        ({"type": "api_key", "key": "canary-k3y"}, True, "create secret generic my-llama "),
        ({"type": "ApiKey", "key": "canary-k3y"}, True, "create secret generic my-llama "),
        ({"type": "pat", "pat": "canary-k3y"}, True, "create secret generic my-llama "),
        ({"type": "managed_identity", "client_id": "x"}, True, "type managed_identity are known to Azure"),
        ({"type": "none"}, False, ""),
        (None, False, ""),
    ],
)
def test_a_teacher_by_a_workspaces_connection(
    address: str, credentials: dict[str, str] | None, keyed: bool, words: str
) -> None:
    job = changed("teacher_model_endpoint_connection", {
        "name": "my_Llama", "type": "custom", address: "https://llama.example/v1/chat/completions",
        "credentials": credentials, "is_shared": True, "metadata": {},
    })  # fmt: skip
    made = convert(job, WISH)
    endpoint = made.manifest["spec"]["teacher"]["endpoint"]
    assert (endpoint["url"], endpoint["model"]) == ("https://llama.example/v1", "my_Llama")
    assert endpoint.get("credentials") == ({"secret": "my-llama"} if keyed else None)
    assert words in " ".join(made.remarks)
    assert any("known to Azure" in remark for remark in made.remarks) == ("known to Azure" in words)
    assert any("create secret" in remark for remark in made.remarks) == keyed
    assert "teacher_model_endpoint_connection.is_shared, teacher_model_endpoint_connection.metadata" in left_out(made)
    assert "canary" not in str(made)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("written", [str.lower, str.upper])
def test_every_task(task: str, written: Any) -> None:
    job = changed("data_generation_task_type", written(task))
    del job["prompt_settings"]
    made = convert(job, WISH)
    assert made.manifest["spec"]["task"] == TASKS[task]
    assert any("last answer alone" in remark for remark in made.remarks) == (task == "conversation")


def test_a_summary_keeps_its_length() -> None:
    job = changed("data_generation_task_type", "SUMMARIZATION")
    job["prompt_settings"] = {"enable_chain_of_density": "true", "max_len_summary": 50}
    assert spec_of(job)["teacher"]["prompt"] == {"chainOfDensity": True, "maxSummaryLength": 50}
    job["prompt_settings"] = {"max_len_summary": 50}
    made = convert(job, WISH)
    assert "maxSummaryLength" not in made.manifest["spec"]["teacher"]["prompt"]
    assert any("max_len_summary" in remark for remark in made.remarks)


REFUSED = {
    "another type": ("type", "command", "type:"),
    "another generation": ("data_generation_type", "data_generation", "data_generation_type:"),
    "no task": ("data_generation_task_type", None, "data_generation_task_type: one of nli, conversation"),
    "unknown task": ("data_generation_task_type", "poetry", "data_generation_task_type: one of nli, conversation"),
    "thought in a conversation": ("data_generation_task_type", "CONVERSATION", "prompt_settings.enable_chain_of_thought:"),
    "density for numbers": ("prompt_settings.enable_chain_of_density", True, "prompt_settings.enable_chain_of_density:"),
    "connection by name": ("teacher_model_endpoint_connection", "azureml:llama", "teacher_model_endpoint_connection.end"),
    "student of one's own": ("student_model", "azureml:mine:1", "student_model: no public address of azureml:mine:1"),
    "no student": ("student_model", None, "student_model: no public address of nothing"),
    "data on a disk": ("training_data.path", "./train.jsonl", "training_data.path: ./train.jsonl cannot be read"),
    "data in a workspace": ("validation_data.path", "azureml://d/x", "validation_data.path: azureml://d/x cannot be read"),
    "no data": ("training_data", None, "training_data: the prompts are expected"),
    "temperature in words": (f"{INFERENCE}.temperature", "hot", f"{INFERENCE}.temperature: could not convert"),
    "temperature of 3": (f"{INFERENCE}.temperature", 3, f"{INFERENCE}.temperature: input should be less than"),
    "half a batch": (f"{REQUESTS}.request_batch_size", 2.5, f"{REQUESTS}.request_batch_size: a whole number"),
    "batch of a thousand": (f"{REQUESTS}.request_batch_size", 1000, f"{REQUESTS}.request_batch_size: input should be less"),
    "perhaps": ("prompt_settings.enable_chain_of_thought", "perhaps", "prompt_settings.enable_chain_of_thought: true or f"),
    "unknown parameter": (f"{INFERENCE}.top_k", 5, f"{INFERENCE}.top_k: no counterpart"),
    "unknown hyperparameter": ("hyperparameters.lora_r", 5, "hyperparameters.lora_r: no counterpart"),
    "unknown setting": ("teacher_model_settings.speed", 5, "teacher_model_settings.speed: no counterpart"),
    "unknown field": ("computer", "cpu", "computer: no field of a distillation job"),
    "unknown field of the teacher": ("teacher_model_endpoint_connection.adress", "x",
                                     "teacher_model_endpoint_connection.adress: no field of a connection"),
    "credentials of no type": ("teacher_model_endpoint_connection.credentials", {"key": "x"},
                               "teacher_model_endpoint_connection.credentials.type: expected"),
    "settings that are a list": ("hyperparameters", [1], "hyperparameters: a mapping is expected"),
    "no epochs": ("hyperparameters.num_train_epochs", 0, "hyperparameters.num_train_epochs: input should be greater"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_carried_over_is_named(case: str) -> None:
    path, value, words = REFUSED[case]
    with pytest.raises(Refused) as refused:
        convert(changed(path, value), WISH)
    assert str(refused.value).startswith(words)


def test_what_the_job_cannot_say_the_user_does() -> None:
    job = changed("training_data.path", "./train.jsonl")
    job["student_model"] = "azureml:mine:1"
    del job["validation_data"]
    wish = Wish("r.example/x", student="hf://org/s", train="oci://r.example/d:v1", secret="key", namespace="edge-ai")
    made = convert(job, wish).manifest
    assert made["metadata"] == {"name": "distill-phi-4", "namespace": "edge-ai"}
    assert made["spec"]["student"]["model"]["uri"] == "hf://org/s"
    assert made["spec"]["data"]["train"] == {"uri": "oci://r.example/d:v1", "format": "Messages"}
    assert "validation" not in made["spec"]["data"]
    assert made["spec"]["teacher"]["endpoint"]["credentials"] == {"secret": "key"}


# --- the command


def test_the_command_prints_a_manifest_and_no_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(JOB))
    assert main(["convert", "azureml", str(file), "--output", "registry.example/slm/phi"]) == 0
    said = capsys.readouterr()
    assert yaml.safe_load(said.out) == convert(JOB, WISH).manifest
    assert said.out.count("# ") == len(convert(JOB, WISH).remarks)
    assert "canary" not in said.out + said.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"), (b"- 1", "a mapping is expected"), (b"a: [", "not YAML"), (b"\xff\xfe\x00", "not YAML"),
        (b"type: command", "type: distillation is expected, found command"),
    ],
)  # fmt: skip
def test_the_command_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, words: str
) -> None:
    file = tmp_path / "job.yaml"
    if content is not None:
        file.write_bytes(content)
    assert main(["convert", "azureml", str(file), "--output", "registry.example/slm/phi"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.count("\n") == 1


def test_the_docs_have_each_field_of_the_job() -> None:
    page = (ROOT / "docs" / "distillation.md").read_text()
    fields = {known.azure for known in FIELDS} | {*SCHEMA, *CONNECTION_SCHEMA, *SILENT}
    assert set(CONNECTION_SCHEMA) == CONNECTION | CONNECTION_LEFT_OUT
    assert [name for name in sorted(fields) if f"`{name.rpartition('.')[2]}" not in page] == []
    ours = [known.ours for known in FIELDS] + [path for path, _ in ALWAYS]
    assert [path for path in ours if f"`{path}`" not in page] == []

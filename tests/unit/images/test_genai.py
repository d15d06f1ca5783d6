"""genai_config.json, by which the runtime is told what to load."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slmkit.run import RunFailed
from slmkit.safety import check_model_folder, check_runtime_folder
from slmops.contract import Reason
from tests.unit.images.modelfolder import refused
from tests.unit.images.onnxbytes import place

NAMES = {"past_key_names": "past_key_values.%d.key", "input_ids": "input_ids"}
WRITTEN: dict[str, Any] = {
    "model": {
        "bos_token_id": 1, "context_length": 2048, "eos_token_id": [2, 3], "pad_token_id": 0, "type": "llama",
        "vocab_size": 300, "decoder": {
            "session_options": {"log_id": "onnxruntime-genai", "provider_options": []}, "filename": "model.onnx",
            "head_size": 32, "hidden_size": 64, "inputs": NAMES, "outputs": {"logits": "logits"},
            "num_attention_heads": 2, "num_hidden_layers": 2, "num_key_value_heads": 1,
        },
    },
    "search": {
        "diversity_penalty": 0.0, "do_sample": False, "early_stopping": True, "max_length": 2048, "min_length": 0,
        "num_beams": 1, "num_return_sequences": 1, "past_present_share_buffer": True, "temperature": 1.0, "top_k": 50,
        "random_seed": -1,
    },
}  # fmt: skip
"""As the model builder writes it."""


def config(folder: Path, change: Callable[[Any], object] = lambda content: None) -> Path:
    """A whole model whose configuration is changed."""
    content = copy.deepcopy(WRITTEN)
    change(content)
    place(folder)
    (folder / "genai_config.json").write_text(json.dumps(content))
    return folder


def decoder(**changes: Any) -> Callable[[Any], object]:
    return lambda content: content["model"]["decoder"].update(changes)


def session(**options: Any) -> Callable[[Any], object]:
    return lambda content: content["model"]["decoder"]["session_options"].update(options)


def test_what_the_model_builder_writes_passes(tmp_path: Path) -> None:
    check_runtime_folder(config(tmp_path / "cpu"))
    gpu = [{"cuda": {"enable_cuda_graph": "0", "device_filtering_options": {"hardware_device_type": "gpu"}}}]
    check_runtime_folder(config(tmp_path / "gpu", session(provider_options=gpu, intra_op_num_threads=4)))


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/models/model.onnx", "x/../../model.onnx", "..", "a\\b.onnx", ".model.onnx", 5,
             ["model.onnx"], {}, "model.onnx\n", "https://example.com/model.onnx"],
)  # fmt: skip
@pytest.mark.parametrize("where", ["filename", "adapter_filename", "config_filename"])
def test_files_are_named_in_the_folder(tmp_path: Path, name: object, where: str) -> None:
    folder = config(tmp_path, decoder(**{where: name}))
    refused(folder, "genai_config.json", where, "is no name of a file in the model's folder")


@pytest.mark.parametrize("name", ["model.ort", "model.bin", "model", "libmodel.so", "model.onnx.data"])
def test_a_model_is_one_of_a_kind_that_is_looked_at(tmp_path: Path, name: str) -> None:
    refused(config(tmp_path, decoder(filename=name)), "is none of .json, .onnx, .onnx_adapter")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (session(custom_ops_library="libops.so"), "custom_ops_library names a place or a library"),
        (session(enable_profiling="trace"), "enable_profiling names a place"),
        (session(**{"ep.context_file_path": "x"}), "ep.context_file_path names a place"),
        (session(**{"session.model_external_initializers_file_folder_path": "/etc"}), "names a place"),
        (session(**{"session.load_model_format": "ORT"}), "session.load_model_format is no option"),
        (session(**{"ep.share_ep_contexts": "1"}), "ep.share_ep_contexts is no option"),
        (session(provider_options=[{"qnn": {"backend_path": "libQnnHtp.so"}}]), "backend_path names a place"),
        (session(provider_options=[{"vitisai": {"config_file": "x.json"}}]), "config_file names a place"),
        (session(provider_options=[{"openvino": {"cache_dir": "/tmp"}}]), "cache_dir names a place"),
        (session(provider_options=[{"x": {"ep_library": "y"}}]), "ep_library names a place"),
        (session(provider_options=[{"x": {"option": "/lib/y"}}]), "option option names a place"),
        (session(provider_options=[{"x": {"option": "y.so"}}]), "option option names a place"),
        (decoder(run_options={"option": "../y"}), "option option names a place"),
        (lambda content: content["model"].update(tokenizer_dir="/etc"), "tokenizer_dir names a place"),
        (session(intra_op_num_threads=1 << 20), "intra_op_num_threads is beyond 1024"),
        (lambda content: content["search"].update(num_beams=65), "num_beams is beyond 64"),
        (lambda content: content["search"].update(batch_size=1 << 20), "batch_size is beyond 256"),
        (lambda content: content["search"].update(max_length=1 << 30), "max_length is beyond"),
        (lambda content: content["search"].update(top_k=1 << 40), "top_k is beyond"),
        (lambda content: content["search"].update(temperature=float("nan")), "temperature is beyond"),
        (lambda content: content["model"].update(context_length=-(1 << 30)), "context_length is beyond"),
        (decoder(num_hidden_layers=1 << 30), "num_hidden_layers is beyond 1024"),
        (decoder(head_size=1 << 20), "head_size is beyond"),
    ],
)
def test_settings_that_load_read_or_write_something_or_have_no_end_are_refused(
    tmp_path: Path, change: Callable[[Any], object], words: str
) -> None:
    refused(config(tmp_path, change), "genai_config.json", words)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "genai_config.json").unlink(), "there is no genai_config.json"),
        (lambda folder: (folder / "genai_config.json").write_text("{}"), "names no model"),
        (lambda folder: config(folder, decoder(filename="")), "names no model"),
        (lambda folder: config(folder, decoder(filename="other.onnx")), "other.onnx is not there"),
        (lambda folder: config(folder, decoder(adapter_filename="a.onnx_adapter")), "a.onnx_adapter is not there"),
        (
            lambda folder: (folder / "a.json").write_text("") or config(folder, decoder(config_filename="a.json")),
            "is empty",
        ),
    ],
)
def test_what_a_runtime_is_told_to_load_is_there(tmp_path: Path, spoil: Callable[[Path], object], words: str) -> None:
    spoil(config(tmp_path))
    with pytest.raises(RunFailed, match=words) as failed:
        check_runtime_folder(tmp_path)
    assert failed.value.reason is Reason.UNSUPPORTED_MODEL


def test_a_source_may_lack_files_that_nobody_reads_there(tmp_path: Path) -> None:
    """What a hub's repository has beside its safetensors is not fetched."""
    check_model_folder(config(tmp_path, decoder(filename="cpu/model.onnx")))


def test_a_hostile_graph_is_refused_wherever_it_lies(tmp_path: Path) -> None:
    config(tmp_path)
    place(tmp_path / "deep", b"x")
    refused(tmp_path, "model.onnx: ")
    (tmp_path / "deep" / "model.onnx").rename(tmp_path / "deep" / "model.ONNX")
    refused(tmp_path, "model.ONNX: ")

"""Adapters in PEFT's layout: read to the last bit, and refused where a graph would compute something else."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from slm_quantizer.graft import Linear, fitted, linears
from slm_quantizer.lora import read
from slmkit.run import RunFailed
from slmops.contract import Reason
from tests.unit.images.adapterbytes import peft

LAYER = "model.layers.0.self_attn.q_proj"
Given = tuple[str, Sequence[int], bytes]


def numbers(*shape: int, first: float = 0.1) -> Given:
    content = np.arange(np.prod(shape), dtype="<f4") * np.float32(0.37) + np.float32(first)
    return "F32", shape, content.tobytes()


def pair(layer: str = LAYER, inputs: int = 3, outputs: int = 4, rank: int = 2) -> dict[str, Given]:
    name = f"base_model.model.{layer}"
    return {f"{name}.lora_A.weight": numbers(rank, inputs), f"{name}.lora_B.weight": numbers(outputs, rank, first=-0.7)}


def refused(folder: Path, words: str) -> None:
    with pytest.raises(RunFailed) as failed:
        read(folder, "irrigation")
    assert failed.value.reason is Reason.ADAPTER_MISMATCH
    assert failed.value.message.startswith("adapter irrigation: ")
    assert words in failed.value.message


def test_an_adapter_is_read_to_the_last_bit_and_its_scale_is_in_one_half(tmp_path: Path) -> None:
    given = pair()
    (update,) = read(peft(tmp_path, given), "x").values()  # alpha 4, rank 2
    a, b = (np.frombuffer(raw, "<f4").reshape(shape) for _, shape, raw in given.values())
    assert update.a.tobytes() == a.T.tobytes()
    assert update.b.tobytes() == (b.T * np.float32(2)).tobytes()
    assert (update.a.dtype, update.b.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_sixteen_bits_are_kept_in_thirty_two(tmp_path: Path, dtype: str) -> None:
    values = [1.0, -0.333251953125, 6.103515625e-05, 1024.0, 0.0, -2.0]
    if dtype == "F16":
        raw = np.array(values, "<f2").tobytes()
    else:
        values[1] = -0.333984375
        raw = b"".join(struct.pack("<f", value)[2:] for value in values)
    name = f"base_model.model.{LAYER}"
    given: dict[str, Given] = {
        f"{name}.lora_A.weight": (dtype, (2, 3), raw), f"{name}.lora_B.weight": (dtype, (3, 2), raw),
    }  # fmt: skip
    (update,) = read(peft(tmp_path, given, lora_alpha=2), "x").values()
    assert update.a.T.flatten().tolist() == values
    assert update.b.T.flatten().tolist() == values


@pytest.mark.parametrize(
    ("config", "rank", "scale"),
    [
        ({"lora_alpha": 16}, 2, 8.0), ({"lora_alpha": 4, "use_rslora": True, "r": 4}, 4, 2.0),
        ({"alpha_pattern": {"q_proj": 6}}, 2, 3.0), ({"alpha_pattern": {"self_attn.q_proj": 6, "q_proj": 8}}, 2, 3.0),
        ({"alpha_pattern": {"proj": 6}}, 2, 2.0), ({"rank_pattern": {LAYER: 8}, "r": 2, "lora_alpha": 4}, 8, 0.5),
    ],
)  # fmt: skip
def test_rank_and_scale_are_those_of_the_layer(tmp_path: Path, config: dict[str, Any], rank: int, scale: float) -> None:
    given = pair(rank=rank)
    (update,) = read(peft(tmp_path, given, **config), "x").values()
    b = np.frombuffer(list(given.values())[1][2], "<f4").reshape(4, rank)
    assert update.b.tobytes() == (b.T * np.float32(scale)).tobytes()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "LOHA"}, "not of type LORA"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"target_parameters": ["x"]}, "target_parameters"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"bias": "all"}, "train with bias none"),
        ({"lora_bias": True}, "biases"),
        ({"alora_invocation_tokens": [1]}, "aLoRA"),
        ({"use_qalora": True}, "QALoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4, which changes the base's weights"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"r": 4}, "rank 2, which is not what adapter_config.json says"),
        ({"lora_alpha": None}, "lora_alpha in adapter_config.json is no number"),
        ({"lora_alpha": 1e60}, "what is no number"),
        ({"alpha_pattern": {"(a+)+$": 3}}, "without wildcards"),
    ],
)
def test_what_peft_computes_in_another_way_is_refused(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    refused(peft(tmp_path, pair(), **config), words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base_model.model.lm_head.weight": numbers(2, 2)}, "base_model.model.lm_head.weight is no update of a linear"),
        ({"base_model.model.model.embed_tokens.lora_embedding_A": numbers(2, 2)}, "is no update of a linear layer"),
        ({f"base_model.model.{LAYER}.lora_magnitude_vector": numbers(2)}, "is no update of a linear layer"),
        ({f"base_model.model.{LAYER}.lora_A.weight": numbers(2, 3, 1)}, "is no update of a linear layer"),
        ({f"base_model.model.{LAYER}.lora_A.weight": ("I8", (2, 3), bytes(6))}, "is no update of a linear layer"),
        ({f"base_model.model.{LAYER}.lora_A.weight": ("F32", (2, 1), struct.pack("<2f", 1, float("nan")))}, "no number"),
        ({f"base_model.model.{LAYER}.lora_A.weight": numbers(3, 3)}, "not both halves"),
        ({"base_model.model.model.layers.1.mlp.up_proj.lora_A.weight": numbers(2, 3)}, "not both halves"),
    ],
)  # fmt: skip
def test_what_is_no_update_of_a_linear_layer_is_refused(tmp_path: Path, changes: dict[str, Given], words: str) -> None:
    refused(peft(tmp_path, pair() | changes), words)


def test_an_adapter_of_nothing_and_a_folder_without_one_are_refused(tmp_path: Path) -> None:
    refused(peft(tmp_path / "a", {}), "updates nothing")
    folder = peft(tmp_path / "b", pair())
    (folder / "adapter_config.json").write_text(json.dumps([]))
    refused(folder, "not of type LORA")
    (folder / "adapter_config.json").unlink()
    refused(folder, "there is no adapter_config.json")


# --- and where it goes


def graph(*nodes: tuple[str, str, int, int]) -> Any:
    """(operator, name, inputs, outputs) as the model builder writes them."""
    made, held = [], []
    for op, name, inputs, outputs in nodes:
        weights = SimpleNamespace(name=f"{name}.w", dims=[inputs, outputs], data_type=1)
        held.append(weights)
        told = [SimpleNamespace(name="K", i=inputs), SimpleNamespace(name="N", i=outputs)]
        given = ["x", weights.name] if op == "MatMul" else ["x", "q", weights.name]
        made.append(SimpleNamespace(name=name, op_type=op, input=given, output=["y"], attribute=told))
    return SimpleNamespace(graph=SimpleNamespace(node=made, initializer=held))


CONFIG = {"model": {"decoder": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_size": 8}}}
PLACE = "model.layers.3"


def layers(*nodes: tuple[str, str, int, int]) -> list[Linear]:
    return list(linears(graph(*nodes), CONFIG))


@pytest.mark.parametrize("ending", ["", "_Q4", "_Q8", "NBits"])
def test_layers_are_known_by_the_builders_names_whatever_they_are_rounded_to(ending: str) -> None:
    op = "MatMulNBits" if ending else "MatMul"
    (qkv, down) = layers(
        (op, f"/model/layers.3/attn/qkv_proj/MatMul{ending}", 32, 64), ("Add", "/model/layers.3/attn/o_proj/Add", 1, 1),
        (op, f"/model/layers.3/mlp/down_proj/MatMul{ending}", 96, 32), (op, f"/lm_head/MatMul{ending}", 32, 100),
    )  # fmt: skip
    assert (qkv.inputs, dict(qkv.outputs)) == (
        32, {f"{PLACE}.self_attn.q_proj": 32, f"{PLACE}.self_attn.k_proj": 16, f"{PLACE}.self_attn.v_proj": 16},
    )  # fmt: skip
    assert (down.inputs, dict(down.outputs)) == (96, {f"{PLACE}.mlp.down_proj": 32})


def adapter(folder: Path, layer: str, inputs: int, outputs: int) -> Any:
    return read(peft(folder, pair(layer, inputs, outputs)), "x")


def test_an_update_of_a_packed_layer_is_cut_as_the_layer_is(tmp_path: Path) -> None:
    there = layers(("MatMul", "/model/layers.3/mlp/gate_proj/MatMul", 8, 5),
                   ("MatMul", "/model/layers.3/mlp/up_proj/MatMul", 8, 5))  # fmt: skip
    given = adapter(tmp_path, f"{PLACE}.mlp.gate_up_proj", 8, 10)
    found = fitted(given, there, "x")
    whole = given[f"{PLACE}.mlp.gate_up_proj"]
    gate, up = (found[f"{PLACE}.mlp.{name}_proj"] for name in ("gate", "up"))
    assert np.array_equal(np.concatenate([gate.b, up.b], axis=1), whole.b)
    assert gate.a is up.a is whole.a


@pytest.mark.parametrize(
    ("layer", "inputs", "outputs", "words"),
    [
        (f"{PLACE}.mlp.down_proj", 97, 32, "of another model: model.layers.3.mlp.down_proj has 97 inputs and 32 outputs"),
        (f"{PLACE}.mlp.down_proj", 96, 33, "of another model"),
        ("model.layers.4.mlp.down_proj", 96, 32, "no linear layer model.layers.4.mlp.down_proj"),
        ("lm_head", 32, 100, "no linear layer lm_head"),
        (f"{PLACE}.mlp.gate_up_proj", 96, 32, "no linear layer"),
    ],
)  # fmt: skip
def test_an_adapter_of_another_model_is_refused(
    tmp_path: Path, layer: str, inputs: int, outputs: int, words: str
) -> None:
    there = layers(("MatMul", "/model/layers.3/mlp/down_proj/MatMul", 96, 32))
    with pytest.raises(RunFailed, match="adapter x: ") as failed:
        fitted(adapter(tmp_path, layer, inputs, outputs), there, "x")
    assert failed.value.reason is Reason.ADAPTER_MISMATCH
    assert words in failed.value.message

"""Places for adapters in a converted model: beside each linear layer that one of them updates, a way of its own around it.

    x ──┬── W, quantized as it is ─────────── + ──>
        └── A ── B ───────────────────────────┘

A and B are inputs of the graph that need not be given: each has a default. By that nothing is added, so that without an
adapter the model answers as it would have without these places, to the last bit. An adapter brings its own matrices, of any
rank, for as many of the places as it has. Neither matrix is quantized.

The graph is the one of ONNX Runtime GenAI's model builder, whose names tell the layers. Olive's way (its pass
ExtractAdapters) begins with an adapter in the model, which is rounded and unpacks the layers, and gives all the same rank.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slm_quantizer.lora import Update, mismatch
from slmkit.run import RunFailed
from slmops.contract import Reason

NODE = re.compile(r"/model/layers\.(\d+)/(attn|mlp)/(\w+_proj)/MatMul(_Q\d+|NBits)?")
PARTS = {"attn": "self_attn", "mlp": "mlp"}
"""What the builder calls parts of a layer, and transformers."""
PACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Layers that are one for several, in a graph or in a model."""
BLANK = {"CPU": 0, "CUDA": 1}
"""Rank of the defaults. Nothing at all is the least to compute, but cuBLAS takes no matrix of nothing: zeros there."""
FLOAT16 = 10
"""ONNX's number of the type."""


@dataclass(frozen=True)
class Linear:
    """A linear layer in a graph."""

    node: Any
    inputs: int
    outputs: Mapping[str, int]
    """Widths by the layers' names in transformers: several where the graph has packed them into one."""
    type: int
    """Of its numbers, in ONNX's count."""


def linears(model: Any, config: Mapping[str, Any]) -> Iterator[Linear]:
    """The layers of a graph that adapters can update. ``config``: its genai_config.json."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        found = NODE.fullmatch(node.name)
        if found is None or node.op_type not in ("MatMul", "MatMulNBits"):
            continue
        place = f"model.layers.{found[1]}.{PARTS[found[2]]}"
        weights = constants.get(node.input[2 if node.op_type == "MatMulNBits" else 1])
        if weights is None:
            continue
        if node.op_type == "MatMul":
            inputs, outputs = weights.dims
        else:
            told = {each.name: each.i for each in node.attribute}
            inputs, outputs = told["K"], told["N"]
        names = PACKED.get(found[3], (found[3],))
        widths = _widths(found[3], outputs, config)
        outputs_of = dict(zip((f"{place}.{name}" for name in names), widths, strict=True))
        yield Linear(node, inputs, outputs_of, weights.data_type)


def _widths(name: str, outputs: int, config: Mapping[str, Any]) -> tuple[int, ...]:
    if name not in PACKED:
        return (outputs,)
    if name == "gate_up_proj":
        return outputs // 2, outputs // 2
    decoder = config["model"]["decoder"]
    values = decoder["num_key_value_heads"] * decoder["head_size"]
    return outputs - 2 * values, values, values


def fitted(updates: Mapping[str, Update], layers: Collection[Linear], name: str) -> dict[str, Update]:
    """The updates of adapter ``name`` by the graph's layers. Raises RunFailed where one fits none of them."""
    sizes = {layer: (linear.inputs, width) for linear in layers for layer, width in linear.outputs.items()}
    found = {}
    for layer, update in updates.items():
        place, _, last = layer.rpartition(".")
        parts = [f"{place}.{part}" for part in PACKED.get(last, (last,))]
        if not all(part in sizes for part in parts):
            raise mismatch(name, f"the model has no linear layer {layer[:128]} that could be updated")
        here = update.a.shape[0], update.b.shape[1]
        there = sizes[parts[0]][0], sum(sizes[part][1] for part in parts)
        if here != there:
            raise mismatch(name, f"it is of another model: {layer} has {here[0]} inputs and {here[1]} outputs there, "
                           f"{there[0]} and {there[1]} here")  # fmt: skip
        ends = np.cumsum([sizes[part][1] for part in parts])
        for part, end in zip(parts, ends, strict=True):
            found[part] = Update(update.a, update.b[:, end - sizes[part][1] : end])
    return found


def graft(folder: Path, adapters: Mapping[str, Mapping[str, Update]], device: str) -> dict[str, dict[str, Any]]:
    """Make places in the model of a folder for all that the adapters update. Returns the matrices of each by the names of
    the graph's inputs."""
    import onnx

    config = json.loads((folder / "genai_config.json").read_bytes())
    path = folder / config["model"]["decoder"]["filename"]
    model = onnx.load(path, load_external_data=False)
    found = list(linears(model, config))
    fits = {name: fitted(updates, found, name) for name, updates in adapters.items()}
    wanted = {layer for updates in fits.values() for layer in updates}
    chosen = [linear for linear in found if not wanted.isdisjoint(linear.outputs)]
    around = {linear.node.name: _detour(model.graph, linear, BLANK[device]) for linear in chosen}
    nodes = [each for node in model.graph.node for each in (node, *around.get(node.name, ()))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)
    # Each of these inputs would be remarked on whenever the model is loaded.
    config["model"]["decoder"].setdefault("session_options", {})["log_severity_level"] = 3
    (folder / "genai_config.json").write_text(json.dumps(config, indent=4))
    types = {layer: linear.type for linear in chosen for layer in linear.outputs}
    return {name: _matrices(name, updates, types) for name, updates in fits.items()}


def _matrices(name: str, updates: Mapping[str, Update], types: Mapping[str, int]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for layer, update in updates.items():
        for side, matrix in (("A", update.a), ("B", update.b)):
            half = types[layer] == FLOAT16
            with np.errstate(over="ignore"):
                given = np.ascontiguousarray(matrix, np.float16 if half else np.float32)
            if not np.isfinite(given).all():
                raise RunFailed(Reason.CONVERSION_FAILED, f"adapter {name}: {layer} is beyond the range of FP16")
            out[_input(layer, side)] = given
    return out


def _input(layer: str, side: str) -> str:
    return f"{layer}.lora_{side}.weight"


def _detour(graph: Any, linear: Linear, blank: int) -> list[Any]:
    """The nodes of the way around one layer. What comes out has the layer's own name, so that nothing else changes."""
    from onnx import helper, numpy_helper

    node = linear.node
    x, y, kind = node.input[0], node.output[0], np.float16 if linear.type == FLOAT16 else np.float32
    node.output[0] = f"{y}/plain"
    new, ways = [], []
    for layer, width in linear.outputs.items():
        a, b, rank = _input(layer, "A"), _input(layer, "B"), f"{layer}.rank"
        # A rank of its own for each: the runtime plans its memory by these names.
        graph.input.append(helper.make_tensor_value_info(a, linear.type, [linear.inputs, rank]))
        graph.input.append(helper.make_tensor_value_info(b, linear.type, [rank, width]))
        graph.initializer.append(numpy_helper.from_array(np.zeros((linear.inputs, blank), kind), a))
        graph.initializer.append(numpy_helper.from_array(np.zeros((blank, width), kind), b))
        new += [helper.make_node("MatMul", [x, a], [f"{layer}/lora_A"], f"{layer}/lora_A"),
                helper.make_node("MatMul", [f"{layer}/lora_A", b], [f"{layer}/lora_B"], f"{layer}/lora_B")]  # fmt: skip
        ways.append(f"{layer}/lora_B")
    if len(ways) > 1:
        new.append(helper.make_node("Concat", ways, [f"{y}/lora"], f"{y}/lora", axis=-1))
        ways = [f"{y}/lora"]
    return [*new, helper.make_node("Add", [f"{y}/plain", ways[0]], [y], f"{y}/sum")]

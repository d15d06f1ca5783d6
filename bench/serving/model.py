"""A model folder as images have it, with weights that have never learned anything, which changes neither size nor speed:
``python model.py FOLDER NAME VOCABULARY WIDTH INNER LAYERS HEADS KV_HEADS [hidden]``.

Written node by node as the model builder writes a Qwen2 for CPUs, and then quantized to INT4 by ONNX Runtime's own tool, so
that nothing of PyTorch is needed. Each byte is a token of prompts. No answer ends by itself.
"""

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

CONTEXT = 512
END = 0
"""The token that ends an answer. Its row of the head is zero, so it is never the likeliest."""
BYTES = 256
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Shape:
    """How large it is."""

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.width // self.heads


class Graph:
    """Nodes and weights as they come."""

    def __init__(self, shape: Shape) -> None:
        self._draw = np.random.default_rng(1)
        self.shape, self.nodes, self.weights = shape, [], []  # type: ignore[var-annotated]
        self.parameters = 0

    def add(self, operator: str, inputs: list[str], name: str, outputs: int = 1, **attributes: Any) -> str:
        """A node; its first output."""
        names = [name, *(f"{name}.{number}" for number in range(1, outputs))]
        domain = MICROSOFT if operator in ("GroupQueryAttention", "SkipSimplifiedLayerNormalization") else ""
        self.nodes.append(helper.make_node(operator, inputs, names, name=name, domain=domain, **attributes))
        return name

    def weight(self, name: str, value: Any) -> str:
        """An array that is kept in the model."""
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def drawn(self, name: str, rows: int, columns: int) -> str:
        """A matrix of random numbers."""
        self.parameters += rows * columns
        return self.weight(name, self._draw.normal(0, 0.05, (rows, columns)).astype(np.float32))

    def multiplied(self, value: str, name: str, rows: int, columns: int) -> str:
        """``value`` times a matrix of random numbers."""
        return self.add("MatMul", [value, self.drawn(f"{name}.weight", rows, columns)], name)

    def normalised(self, value: str, skip: str | None, name: str) -> tuple[str, str]:
        """RMS normalisation, and the sum that goes on beside it."""
        scale = self.weight(f"{name}.scale", np.ones(self.shape.width, np.float32))
        if skip is None:
            return self.add("SimplifiedLayerNormalization", [value, scale], name, axis=-1, epsilon=1e-6), value
        outputs = [name, "", "", f"{name}.sum"]
        self.nodes.append(helper.make_node("SkipSimplifiedLayerNormalization", [skip, value, scale], outputs, name=name,
                                           domain=MICROSOFT, epsilon=1e-6))  # fmt: skip
        return name, f"{name}.sum"


def _positions(graph: Graph) -> list[str]:
    """What attention asks of the mask, and the angles of positions."""
    one, axis = graph.weight("one", np.array([1], np.int64)), graph.weight("axis", np.array([1], np.int64))
    long = graph.add(
        "Sub", [graph.add("ReduceSum", ["attention_mask", axis], "mask.sum", keepdims=0), one], "mask.last"
    )
    count = graph.add("Gather", [graph.add("Shape", ["attention_mask"], "mask.shape"),
                                 graph.weight("second", np.array(1, np.int64))], "mask.length", axis=0)  # fmt: skip
    rates = 10_000 ** (-np.arange(0, graph.shape.head, 2) / graph.shape.head)
    angles = np.outer(np.arange(CONTEXT), rates).astype(np.float32)
    return [
        graph.add("Cast", [long], "seqlens_k", to=TensorProto.INT32),
        graph.add("Cast", [count], "total_length", to=TensorProto.INT32),
        graph.weight("cos", np.cos(angles)), graph.weight("sin", np.sin(angles)),
    ]  # fmt: skip


def _layer(graph: Graph, number: int, value: str, skip: str | None, positions: list[str]) -> tuple[str, str]:
    shape, name = graph.shape, f"layer{number}"
    inner, skip = graph.normalised(value, skip, f"{name}.norm")
    parts = [graph.multiplied(inner, f"{name}.{part}", shape.width, shape.head * count)
             for part, count in (("q", shape.heads), ("k", shape.kv_heads), ("v", shape.kv_heads))]  # fmt: skip
    past = [f"past_key_values.{number}.{part}" for part in ("key", "value")]
    present = [f"present.{number}.{part}" for part in ("key", "value")]
    graph.nodes.append(helper.make_node(
        "GroupQueryAttention", [*parts, *past, *positions], [f"{name}.attention", *present], name=f"{name}.attention",
        domain=MICROSOFT, num_heads=shape.heads, kv_num_heads=shape.kv_heads, do_rotary=1, scale=shape.head**-0.5,
    ))  # fmt: skip
    attended = graph.multiplied(f"{name}.attention", f"{name}.o", shape.width, shape.width)
    inner, skip = graph.normalised(attended, skip, f"{name}.after")
    gate = graph.multiplied(inner, f"{name}.gate", shape.width, shape.inner)
    up = graph.multiplied(inner, f"{name}.up", shape.width, shape.inner)
    gated = graph.add("Mul", [gate, graph.add("Sigmoid", [gate], f"{name}.sigmoid")], f"{name}.silu")
    both = graph.add("Mul", [gated, up], f"{name}.gated")
    return graph.multiplied(both, f"{name}.down", shape.inner, shape.width), skip


def graph(shape: Shape, hidden: bool) -> tuple[onnx.ModelProto, int]:
    """The model in FP32, and how many parameters it has. ``hidden``: with the states before its head as an output."""
    made = Graph(shape)
    value = made.add("Gather", [made.drawn("embeddings", shape.vocabulary, shape.width), "input_ids"], "embedded")
    positions, skip = _positions(made), None
    for number in range(shape.layers):
        value, skip = _layer(made, number, value, skip, positions)
    value, _ = made.normalised(value, skip, "hidden_states")
    made.multiplied(value, "logits", shape.width, shape.vocabulary)
    head = next(weight for weight in made.weights if weight.name == "logits.weight")
    numbers = numpy_helper.to_array(head).copy()
    numbers[:, END] = 0
    head.CopyFrom(numpy_helper.from_array(numbers, head.name))

    def cache(name: str, length: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", shape.kv_heads, length, shape.head])

    kinds = [f"{number}.{part}" for number in range(shape.layers) for part in ("key", "value")]
    whole = helper.make_graph(
        made.nodes, "made",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"]),
         helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]),
         *(cache(f"past_key_values.{kind}", "past") for kind in kinds)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "length", shape.vocabulary]),
         *(cache(f"present.{kind}", "total") for kind in kinds)],
        made.weights,
    )  # fmt: skip
    if hidden:
        shaped = ["batch", "length", shape.width]
        whole.output.append(helper.make_tensor_value_info("hidden_states", TensorProto.FLOAT, shaped))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(whole, opset_imports=opsets, ir_version=10), made.parameters


def _tokenizer(folder: Path, vocabulary: int) -> None:
    """Bytes, and words that only answers have."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 1024))
    letters = [chr(byte) if byte in printable else chr(next(others)) for byte in range(BYTES)]
    words = ["<|end|>", *letters, *(f"Ġw{number}" for number in range(BYTES + 1, vocabulary))]
    special = {"id": END, "content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False,
               "normalized": False, "special": True}  # fmt: skip
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "fuse_unk": False,
             "end_of_word_suffix": "", "byte_fallback": False, "vocab": {word: i for i, word in enumerate(words)},
             "merges": []}  # fmt: skip
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [special], "normalizer": None,
             "pre_tokenizer": level, "post_processor": None, "decoder": level, "model": model}  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|end|>", "pad_token": "<|end|>",
                "chat_template": TEMPLATE, "model_max_length": CONTEXT, "add_prefix_space": False}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def make(folder: Path, name: str, shape: Shape, threads: int = 1, hidden: bool = False) -> int:
    """Write it. Returns how many parameters it has. ``threads``: of the runtime."""
    folder.mkdir(parents=True)
    model, parameters = graph(shape, hidden)
    quantizer = MatMulNBitsQuantizer(model, block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    onnx.save_model(quantizer.model.model, folder / "model.onnx", save_as_external_data=True,
                    location="model.onnx.data", size_threshold=1024)  # fmt: skip
    _tokenizer(folder, shape.vocabulary)
    places = {"input_ids": "input_ids", "attention_mask": "attention_mask",
              "past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"}  # fmt: skip
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": [], "intra_op_num_threads": threads},
        "filename": "model.onnx", "head_size": shape.head, "hidden_size": shape.width, "inputs": places,
        "outputs": {"logits": "logits", "present_key_names": "present.%d.key", "present_value_names": "present.%d.value"},
        "num_attention_heads": shape.heads, "num_hidden_layers": shape.layers, "num_key_value_heads": shape.kv_heads,
    }  # fmt: skip
    config = {
        "model": {"bos_token_id": END, "eos_token_id": END, "pad_token_id": END, "context_length": CONTEXT, "type": "qwen2",
                  "vocab_size": shape.vocabulary, "decoder": decoder},
        "search": {"do_sample": False, "max_length": CONTEXT, "min_length": 0, "num_beams": 1,
                   "past_present_share_buffer": True},
    }  # fmt: skip
    (folder / "genai_config.json").write_text(json.dumps(config))
    (folder / "inference_model.json").write_text(json.dumps({"Name": f"{name}:1"}))
    return parameters


if __name__ == "__main__":
    logging.disable(logging.INFO)  # the quantizer tells of every node
    print(make(Path(sys.argv[1]), sys.argv[2], Shape(*map(int, sys.argv[3:9])), hidden="hidden" in sys.argv[9:]))

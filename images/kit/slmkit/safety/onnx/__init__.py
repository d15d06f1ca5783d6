"""ONNX models, looked at before a library parses them: their shape, their operators, their tensors, the files beside them.

What is read is ``onnx.proto`` (ONNX 1.23) by its wire format, without a parser and without anything that is not in Python
itself: the runtime on edge nodes has no ``onnx`` package, and a parser that is given a bomb has gone off already.
"""

import mmap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from slmkit.safety.onnx.beside import Beside
from slmkit.safety.onnx.graph import NODES, OWN, Graphs, Name
from slmkit.safety.onnx.schema import ONNX
from slmkit.safety.onnx.wire import MalformedError, Reader, Span
from slmkit.safety.text import unsafe

FILE = (1 << 31) - 1
"""Bytes: a message of Protocol Buffers is no longer. Weights are beside the model."""
FIELDS = 2_000_000
"""Of all messages together; a node has some ten. A parser makes objects of 50 bytes and more of them."""
TEXT = 64 << 20
"""Bytes of names, notes and texts."""
CALLS = 32
"""How deep functions of a model's own call each other."""
IR = range(3, 16)
OPSETS = {OWN: range(7, 31), "ai.onnx.ml": range(1, 11), "com.microsoft": range(1, 2)}
"""Domains whose operators ONNX Runtime has built in, and their versions."""
UNUSED = range(1 << 16)
"""Versions of a domain that no operator is of: exporters name all that they know."""
RUNS = {"EPContext", "PythonOp", "PythonOpGrad", "ATen", "Snpe", "TritonOp"}
"""Operators of com.microsoft that load other files, hold a device's programs, or call Python."""


def check_onnx(path: Path) -> frozenset[Path]:
    """Raise RunFailed with reason UnsafeSource unless a model may be loaded. Returns the data files that it reads."""
    beside = Beside(path.parent)
    try:
        size = path.stat().st_size
        if not 0 < size <= FILE:
            raise MalformedError(f"larger than {FILE} bytes" if size else "is empty")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            check_bytes(content, beside)
        beside.check()
    except MalformedError as error:
        raise unsafe(path, str(error)) from None
    return frozenset(beside.files)


def check_bytes(content: "mmap.mmap | bytes", beside: Beside) -> None:
    """Raise MalformedError unless these are the bytes of a model that may be loaded."""
    reader = Reader(content, ONNX, FIELDS, TEXT)
    graphs = Graphs(reader, beside)
    graph, version, opsets, bodies = None, 0, [], []
    for field, value in reader.message("Model", Span(0, len(content))):
        if field.name == "graph":
            graph = value
        elif field.name == "function":
            bodies.append(value)
        elif field.name == "opset":
            opsets.append(value)
        elif field.name == "ir_version":
            version = value
        elif field.name == "training":
            raise MalformedError("holds instructions for training, which nobody here follows")
        elif field.kind in ONNX:
            graphs.skim(field.kind, value, 1)
    if graph is None:
        raise MalformedError("holds no graph: it is no ONNX model")
    if version not in IR:
        raise MalformedError(f"IR version {version} is not between {IR[0]} and {IR[-1]}")
    graphs.graph(graph)
    main = graphs.calls
    functions: dict[Name, Counter[Name]] = {}
    for body in bodies:
        graphs.calls = Counter()
        opsets += graphs.function(body)
        name = _name(reader, body)
        if name in functions:
            raise MalformedError(f"function {_shown(name)} is there twice")
        functions[name] = graphs.calls
    _operators(main, functions)
    for calls in functions.values():
        _operators(calls, functions)
    if _unfolded(main, functions, {}, CALLS) > NODES:
        raise MalformedError(f"its functions unfold to more than {NODES} nodes")
    used = {name[0] for calls in (main, *functions.values()) for name in calls}
    for domain, number in (_opset(reader, span) for span in opsets):
        allowed = OPSETS.get(domain, UNUSED) if domain in used else UNUSED
        if number not in allowed:
            words = f"is not between {allowed[0]} and {allowed[-1]}"
            raise MalformedError(f"version {number} of operators {domain[:64]!r} {words}")


def _name(reader: Reader, span: Span) -> Name:
    """Of a function."""
    told = {field.name: reader.text(value) for field, value in reader.message("Function", span)
            if field.name in ("domain", "name", "overload")}  # fmt: skip
    return told.get("domain", "") or OWN, told.get("name", ""), told.get("overload", "")


def _opset(reader: Reader, span: Span) -> tuple[str, int]:
    """(domain, version)."""
    told = {field.name: value for field, value in reader.message("Opset", span)}
    return reader.text(told.get("domain", Span(0, 0))) or OWN, told.get("version", 0)


def _operators(calls: Mapping[Name, int], functions: Mapping[Name, object]) -> None:
    """Only what ONNX Runtime has itself, or the model defines."""
    for name in calls:
        domain, op, _ = name
        if name not in functions and (domain not in OPSETS or (domain != OWN and op in RUNS)):
            raise MalformedError(
                f"operator {_shown(name)} is not one that ONNX Runtime has itself and that only computes"
            )


def _unfolded(
    calls: Mapping[Name, int], functions: Mapping[Name, Mapping[Name, int]], known: dict[Name, int], deep: int
) -> int:
    """Nodes, once each function is replaced by what it consists of, as runtimes do it."""
    if deep < 0:
        raise MalformedError(f"its functions call each other more than {CALLS} deep")
    total = 0
    for name, count in calls.items():
        if name in functions and name not in known:
            known[name] = _unfolded(functions[name], functions, known, deep - 1)
        total += count * known.get(name, 1)
    return total


def _shown(name: Name) -> str:
    return f"{name[0][:64]}.{name[1][:64]}"

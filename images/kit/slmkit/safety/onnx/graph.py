"""A model's graphs and functions, node by node: how deep, how many, which operators, and what constants make."""

from collections import ChainMap, Counter
from collections.abc import MutableMapping
from typing import Any

from slmkit.safety.onnx.beside import Beside
from slmkit.safety.onnx.schema import ONNX
from slmkit.safety.onnx.sizes import outcome
from slmkit.safety.onnx.tensors import EXTENT, Known, tensor
from slmkit.safety.onnx.wire import MalformedError, Reader, Span

NODES = 200_000
"""In the file, and again with what functions unfold to. Models of a hundred layers have some ten thousand."""
DEPTH = 64
"""Of messages in messages; parsers end at 100."""
GRAPHS = 8
"""Of graphs in graphs (If, Loop, Scan)."""
OWN = "ai.onnx"
"""ONNX's own domain, which is written as nothing, too."""
Name = tuple[str, str, str]
"""Of an operator or a function: domain, name, overload."""
Scope = MutableMapping[str, Known]


class Graphs:
    """Reads graphs; what it has counted is what it is for. Raises MalformedError."""

    def __init__(self, reader: Reader, beside: Beside) -> None:
        self._reader, self._beside = reader, beside
        self.nodes = 0
        self.calls: Counter[Name] = Counter()
        """Operators of the graph, or of the function, that was read last."""

    def graph(self, span: Span, depth: int = 1, level: int = 1, outer: Scope | None = None) -> None:
        """A graph and what is in it. Its constants stand behind its nodes in the file, so they are read first."""
        if level > GRAPHS:
            raise MalformedError(f"graphs lie more than {GRAPHS} deep in each other")
        scope: Scope = ChainMap({}, *(outer.maps if isinstance(outer, ChainMap) else ()))
        nodes: list[Span] = []
        for field, value in self._reader.message("Graph", span):
            if field.name == "initializer":
                name, known = tensor(self._reader, value, self._beside)
                scope[name] = known
            elif field.name == "node":
                self._count()
                nodes.append(value)
            elif field.kind in ONNX:
                self.skim(field.kind, value, depth + 1)
        for node in nodes:
            self._node(node, depth + 1, level, scope)

    def function(self, span: Span) -> list[Span]:
        """A function's body. Returns where its operator sets are."""
        scope: Scope = ChainMap({})
        opsets = []
        for field, value in self._reader.message("Function", span):
            if field.name == "node":
                self._count()
                self._node(value, 2, 1, scope)
            elif field.name == "attribute":
                self._attribute(value, 2, 1, scope)
            elif field.name == "opset":
                opsets.append(value)
            elif field.kind in ONNX:
                self.skim(field.kind, value, 2)
        return opsets

    def skim(self, kind: str, span: Span, depth: int) -> None:
        """A message that holds nothing to look at but its size: how deep it is, and how many fields it has."""
        if depth > DEPTH:
            raise MalformedError(f"messages lie more than {DEPTH} deep in each other")
        if kind == "Tensor":
            tensor(self._reader, span, self._beside)
            return
        extents = []
        for field, value in self._reader.message(kind, span):
            if field.kind in ONNX:
                self.skim(field.kind, value, depth + 1)
            elif kind == "Sparse" and field.name == "dim":
                extents.append(value)
        if kind == "Sparse":
            outcome("RandomUniform", [], {"shape": extents})  # a runtime makes it dense
            if not all(0 <= extent <= EXTENT for extent in extents):
                raise MalformedError("a sparse tensor has a shape that no tensor has")

    def _count(self) -> None:
        self.nodes += 1
        if self.nodes > NODES:
            raise MalformedError(f"more than {NODES} nodes")

    def _node(self, span: Span, depth: int, level: int, scope: Scope) -> None:
        text = {"op": "", "domain": "", "overload": ""}
        inputs: list[Known | None] = []
        outputs: list[str] = []
        attributes: dict[str, Any] = {}
        for field, value in self._reader.message("Node", span):
            if field.name == "input":
                inputs.append(scope.get(self._reader.text(value)))
            elif field.name == "output":
                outputs.append(self._reader.text(value))
            elif field.name == "attribute":
                name, content = self._attribute(value, depth + 1, level, scope)
                attributes[name] = content
            elif field.name in text:
                text[field.name] = self._reader.text(value)
            elif field.kind in ONNX:
                self.skim(field.kind, value, depth + 1)
        domain = text["domain"] or OWN
        self.calls[domain, text["op"], text["overload"]] += 1
        if domain == OWN and outputs:
            found = outcome(text["op"], inputs, attributes)
            if found is not None and outputs[0]:
                scope[outputs[0]] = found

    def _attribute(self, span: Span, depth: int, level: int, scope: Scope) -> tuple[str, Any]:
        """(name, what is known of its value)."""
        if depth > DEPTH:
            raise MalformedError(f"messages lie more than {DEPTH} deep in each other")
        name = ""
        known: Any = None
        ints: list[int] = []
        for field, value in self._reader.message("Attribute", span):
            if field.name == "name":
                name = self._reader.text(value)
            elif field.name == "graph":
                self.graph(value, depth + 1, level + 1, scope)
            elif field.name == "tensor":
                known = tensor(self._reader, value, self._beside)[1]
            elif field.name == "int":
                known = value
            elif field.name == "ints":
                known = ints
                ints.append(value)
            elif field.kind in ONNX:
                self.skim(field.kind, value, depth + 1)
        return name, known

"""How large a value gets that constants alone decide on: a graph of a few bytes can ask for exabytes when it is loaded,
since runtimes compute what is constant then.

What is found is a lower bound. Sizes that depend on what a model is asked are not known here, and what an operator does
that is not listed is not either: those are the runtime's, within the memory of its container.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from slmkit.safety.onnx.tensors import SMALL, Known
from slmkit.safety.onnx.wire import MalformedError
from slmkit.safety.weights import RANK

MOST = 1 << 30
"""Elements. The largest that models make of constants are masks and tables over their context."""
ROUNDS = 1 << 20
"""Of a loop whose number of rounds is a constant."""
LARGEST = 1 << 62
SAME = {"Identity", "Cast", "Abs", "Neg", "Sqrt", "Exp", "Log", "Cos", "Sin", "Relu", "Sigmoid", "Not", "Floor", "Ceil"}
EACH = {"Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Where", "Equal", "Less", "Greater", "LessOrEqual",
        "GreaterOrEqual", "And", "Or", "Xor"}  # fmt: skip
"""Of elements by elements, with NumPy's rules for shapes that differ."""
ARITHMETIC = {"Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b}
Inputs = Sequence[Known | None]


def outcome(op: str, inputs: Inputs, attributes: Mapping[str, Any]) -> Known | None:
    """What is known of an operator's first output; None for nothing. Raises MalformedError where it is too large."""
    at = [*inputs, *[None] * 5]
    if op == "Loop" and (rounds := _whole(at[0])) and rounds[0] > ROUNDS:
        raise MalformedError(f"a loop of more than {ROUNDS} rounds")
    found = _outcome(op, at, attributes)
    if found is None:
        return None
    if found.elements > MOST:
        raise MalformedError(f"{op} makes more than {MOST} elements out of constants")
    if found.values is not None and not (
        len(found.values) <= SMALL and all(math.isfinite(v) and abs(v) <= LARGEST for v in found.values)
    ):
        return Known(found.elements, found.shape)
    return found


def _outcome(op: str, at: Inputs, attributes: Mapping[str, Any]) -> Known | None:
    first = at[0]
    if op in SAME:
        return first if first is None or op in ("Identity", "Cast") else Known(first.elements, first.shape)
    if op in EACH:
        return _each(op, [known for known in at if known is not None])
    if op == "Constant":
        return _constant(attributes)
    if op == "Shape" and first is not None and first.shape is not None:
        return _listed(first.shape)
    if op in ("Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose"):
        return None if first is None else _reshaped(op, first, at[1], attributes)
    if op == "Concat":
        return _concat([known for known in at if known is not None], None in at[: len(at) - 5])
    if op == "MatMul":
        return _matmul(first, at[1])
    return _grown(op, at, attributes)


def _grown(op: str, at: Inputs, attributes: Mapping[str, Any]) -> Known | None:
    """Operators that make more of what they get."""
    first, elements = at[0], at[0].elements if at[0] is not None else 1
    if op == "ConstantOfShape" and (shape := _whole(first)) is not None:
        value = attributes.get("value")
        one = value.values if isinstance(value, Known) else (0.0,)
        size = _product(shape)
        return Known(size, shape, one * size if one and len(one) == 1 and size <= SMALL else None)
    if op == "Expand" and (shape := _whole(at[1])) is not None:
        wide = Known(_product(shape), shape)
        return wide if first is None else _each(op, [first, wide])
    if op == "Tile" and (times := _whole(at[1])) is not None:
        return Known(elements * _product(times))
    if op == "Range" and all(known is not None and known.values for known in at[:3]):
        start, limit, step = (known.values[0] for known in at[:3])  # type: ignore[index,union-attr]
        return _counted((limit - start) / step) if step else None
    if op == "Pad" and (pads := _whole(at[1]) or _list(attributes, "pads")):
        half = len(pads) // 2
        return Known(max(elements, _product([1 + a + b for a, b in zip(pads[:half], pads[half:], strict=False)])))
    if op == "Resize" and (sizes := _whole(at[3])):
        return Known(_product(sizes))
    if op in ("Resize", "Upsample") and (scales := at[2 if op == "Resize" else 1]) is not None and scales.values:
        return Known(math.floor(elements * math.prod(min(abs(scale), LARGEST) for scale in scales.values[:RANK])))
    if op == "OneHot" and (depth := _whole(at[1])):
        return Known(elements * max(0, depth[0]))
    if op in ("RandomNormal", "RandomUniform"):
        return Known(_product(_list(attributes, "shape")))
    return None


def _constant(attributes: Mapping[str, Any]) -> Known | None:
    value = attributes.get("value", attributes.get("value_ints", attributes.get("value_int")))
    if isinstance(value, Known):
        return value
    if isinstance(value, list):
        return Known(len(value), (len(value),), tuple(value))
    return Known(1, (), (value,)) if isinstance(value, int) else None


def _each(op: str, inputs: Sequence[Known]) -> Known | None:
    if not inputs:
        return None
    shapes = [known.shape for known in inputs if known.shape is not None]
    rank = max(map(len, shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    shape = tuple(max(extents) if min(extents) else 0 for extents in zip(*padded, strict=True))
    elements = max([_product(shape) if shapes else 0, *(known.elements for known in inputs)])
    values = None
    if op in ARITHMETIC and len(inputs) == 2 and inputs[0].values and inputs[1].values:
        a, b = inputs[0].values, inputs[1].values
        a, b = a * len(b) if len(a) == 1 else a, b * len(a) if len(b) == 1 else b
        values = tuple(map(ARITHMETIC[op], a, b)) if len(a) == len(b) else None
    return Known(elements, shape if len(shapes) == len(inputs) else None, values)


def _reshaped(op: str, known: Known, wanted: Known | None, attributes: Mapping[str, Any]) -> Known:
    shape: tuple[int, ...] | None = None
    axes = _whole(wanted) or _list(attributes, "axes")
    if op == "Reshape" and axes and min(axes) > 0:
        shape = axes
    elif op == "Unsqueeze" and known.shape is not None:
        rank = len(known.shape) + len(axes)
        new, rest = {axis % rank for axis in axes}, iter(known.shape)
        shape = tuple(1 if axis in new else next(rest, 1) for axis in range(rank))
    elif op == "Squeeze" and known.shape is not None:
        shape = tuple(extent for extent in known.shape if extent != 1)
    return Known(known.elements, shape, None if op == "Transpose" else known.values)


def _concat(inputs: Sequence[Known], more: bool) -> Known | None:
    elements = sum(known.elements for known in inputs)
    if more or elements > SMALL or any(known.values is None for known in inputs):
        return Known(elements) if inputs else None
    return _listed(tuple(value for known in inputs for value in known.values or ()))


def _matmul(a: Known | None, b: Known | None) -> Known | None:
    if a is None or b is None or not a.shape or not b.shape or len(a.shape) < 2 or len(b.shape) < 2:
        return None
    batch = _each("MatMul", [Known(0, a.shape[:-2]), Known(0, b.shape[:-2])])
    shape = (*(batch.shape or () if batch else ()), a.shape[-2], b.shape[-1])
    return Known(_product(shape), shape)


def _listed(values: Sequence[float]) -> Known:
    return Known(len(values), (len(values),), tuple(values))


def _counted(count: float) -> Known:
    whole = max(0, math.ceil(min(count, LARGEST)))
    return Known(whole, (whole,))


def _list(attributes: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """The whole numbers of an attribute that has such."""
    found = attributes.get(name)
    return tuple(found) if isinstance(found, list) else ()


def _product(extents: Sequence[int]) -> int:
    """Elements of a shape; an extent that is copied from another (0, -1) counts as one."""
    return math.prod(extent if extent > 0 else 1 for extent in extents)


def _whole(known: Known | None) -> tuple[int, ...] | None:
    """The values of a small one, as whole numbers."""
    if known is None or known.values is None or not all(float(value).is_integer() for value in known.values):
        return None
    return tuple(int(value) for value in known.values)

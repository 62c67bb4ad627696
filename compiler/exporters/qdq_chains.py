"""Which tensors of an ONNX graph are functions of one other tensor, element by element: what a table of codes can hold.

A hard swish that an exporter wrote as an addition, a clip, a product and a division is one such function. What is done
with them stands in `qdq_int8.py`.
"""

from __future__ import annotations

from collections.abc import Container
from math import prod

from onnx import GraphProto

_ARITHMETIC = frozenset(["Add", "Sub", "Mul", "Div", "Neg", "Abs", "Clip"])
_ACTIVATIONS = frozenset(["Relu", "LeakyRelu", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh"])


def functions_of_one(graph: GraphProto, inner: Container[str]) -> dict[str, str]:
    """Tensors that follow from one other tensor and single numbers, and which that is.

    Args:
        graph: the graph.
        inner: results of layers that only the activation behind them reads: that is part of the layer, no function.
    """
    single = {tensor.name: prod(tensor.dims) == 1 for tensor in graph.initializer}
    found: dict[str, str] = {}
    for node in graph.node:
        if node.op_type not in _ARITHMETIC | _ACTIVATIONS:
            continue
        moving = {found.get(name, name) for name in node.input if name and name not in single}
        plain = all(single[name] for name in node.input if name in single)
        if len(moving) == 1 and plain and not any(name in inner for name in moving):
            found[node.output[0]] = moving.pop()
    return found

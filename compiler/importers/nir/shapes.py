"""Shapes in a NIR graph, without time and batch: what each node makes of the shape of its input.

Computed from weights and inputs alone, because the shapes stored in files are wrong for grouped and non-square
convolutions, and have a batch axis where an exporter was shown a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from neuc.compiler.importers.nir.graph import NUMBERS_OF_METADATA, Node
from neuc.compiler.importers.nir.order import Order
from neuc.errors import Error

Shape = tuple[int, ...]
_MOST_ELEMENTS = 1 << 31


def shape_error(node: Node, what: str, hint: str = "") -> Error:
    """The error for shapes that do not go together at a node."""
    hint = hint or "`neuc inspect` shows the graph up to the nodes that fit"
    return Error("NEUC-E503", f"{node.kind} {node.name}: {what}", hint=hint, nodes=[node.ref])


def shapes_of(nodes: Mapping[str, Node], order: Order) -> dict[str, Shape]:
    """The shape of every node's output.

    Raises:
        Error: NEUC-E503, shapes that do not go together.
    """
    found: dict[str, Shape] = {}
    for name in order.nodes:
        node = nodes[name]
        known = [found[source] for source, _ in order.sources[name] if source in found]
        found[name] = _OUTPUT[node.kind](node, known[0] if known else _own_shape(node))
        if any(size < 1 for size in found[name]):
            raise shape_error(node, f"{list(found[name])} holds nothing")
        if prod(found[name]) > _MOST_ELEMENTS:
            raise shape_error(node, f"{list(found[name])} is more than {_MOST_ELEMENTS} elements")
    for name in order.nodes:
        of_inputs = {found[source] for source, _ in order.sources[name]}
        if len(of_inputs) > 1:
            parts = ", ".join(f"{s} {list(found[s])}" for s, _ in order.sources[name])
            raise shape_error(nodes[name], f"adds up inputs of different shapes: {parts}")
    return found


def _own_shape(node: Node) -> Shape:
    """The input shape of a node nothing leads to, from its parameters."""
    if node.kind in ("Input", "Output"):
        return node.integers("shape")
    if node.kind in ("Linear", "Affine"):
        return (node.numbers("weight").shape[-1],)
    arrays = [np.shape(v) for v in node.fields.values() if not isinstance(v, str)]
    if node.kind in _ELEMENTWISE:
        return np.broadcast_shapes(*arrays)
    raise shape_error(node, "nothing leads to it, so its input has no shape")


def _input(node: Node, given: Shape) -> Shape:
    return node.integers("shape")


def _same(node: Node, given: Shape) -> Shape:
    return given


def _elementwise(node: Node, given: Shape) -> Shape:
    arrays = {key: np.shape(v) for key, v in node.fields.items() if not isinstance(v, str)}
    arrays |= {k: np.asarray(node.metadata[k]).shape for k in NUMBERS_OF_METADATA if k in node.metadata}
    for key, shape in arrays.items():
        try:
            fits = np.broadcast_shapes(given, shape) == given
        except ValueError:
            fits = False
        if not fits:
            raise shape_error(node, f"{key} of shape {list(shape)} does not fit its input of shape {list(given)}")
    return given


def _linear(node: Node, given: Shape) -> Shape:
    weight = node.numbers("weight")
    if weight.ndim != 2:
        raise shape_error(node, f"its weight has rank {weight.ndim}, and only [out, in] is supported")
    if not given or given[-1] != weight.shape[1]:
        raise shape_error(
            node,
            f"its weight takes {weight.shape[1]} inputs, but its input has shape {list(given)}",
            "a Flatten before it may have another start_dim than it should: NIR's shapes have no batch axis",
        )
    if node.kind == "Affine" and node.numbers("bias").shape != weight.shape[:1]:
        raise shape_error(node, f"its bias has shape {list(node.numbers('bias').shape)} for {weight.shape[0]} outputs")
    return (*given[:-1], weight.shape[0])


def conv_window(node: Node) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel, strides, pads (begins then ends) and dilations of a convolution.

    Raises:
        Error: NEUC-E503, they do not fit the weight.
    """
    weight, axes = node.numbers("weight"), 1 if node.kind == "Conv1d" else 2
    if weight.ndim != axes + 2:
        raise shape_error(node, f"its weight has rank {weight.ndim}, should have {axes + 2}")
    kernel = list(weight.shape[2:])
    strides, dilations = list(node.integers("stride", axes)), list(node.integers("dilation", axes))
    padding = node.fields["padding"]
    if not isinstance(padding, str):
        pads = list(node.integers("padding", axes)) * 2
    elif padding == "valid":
        pads = [0] * (2 * axes)
    elif padding != "same":
        raise shape_error(node, f"padding {padding!r}", "padding is numbers, 'same' or 'valid'")
    elif strides != [1] * axes:
        raise shape_error(node, f"padding 'same' with strides {strides}", "give the padding as numbers")
    else:
        reach = [d * (k - 1) for k, d in zip(kernel, dilations)]
        pads = [r // 2 for r in reach] + [r - r // 2 for r in reach]
    if min(strides) < 1 or min(dilations) < 1 or min(pads) < 0 or min(kernel) < 1:
        raise shape_error(node, f"strides {strides}, dilations {dilations}, padding {pads}, kernel {kernel}")
    return kernel, strides, pads, dilations


def _conv(node: Node, given: Shape) -> Shape:
    kernel, strides, pads, dilations = conv_window(node)
    weight, (groups,) = node.numbers("weight"), node.integers("groups", 1)
    if len(given) != weight.ndim - 1:
        raise shape_error(node, f"its input has shape {list(given)}, should have rank {weight.ndim - 1}")
    if groups < 1 or weight.shape[0] % groups or given[0] != weight.shape[1] * groups:
        raise shape_error(
            node, f"its weight {list(weight.shape)} in {groups} groups does not take {given[0]} input channels"
        )
    if node.numbers("bias").size not in (1, weight.shape[0]):
        raise shape_error(node, f"its bias has {node.numbers('bias').size} numbers for {weight.shape[0]} outputs")
    return (weight.shape[0], *_windows(node, given[1:], kernel, strides, pads, dilations))


def _pool(node: Node, given: Shape) -> Shape:
    if len(given) != 3:
        raise shape_error(node, f"its input has shape {list(given)}, should be [channels, height, width]")
    kernel, strides, pads = pool_window(node)
    return (given[0], *_windows(node, given[1:], kernel, strides, pads, [1, 1]))


def pool_window(node: Node) -> tuple[list[int], list[int], list[int]]:
    """Kernel, strides and pads (begins then ends) of a pooling."""
    kernel, strides = list(node.integers("kernel_size", 2)), list(node.integers("stride", 2))
    pads = list(node.integers("padding", 2)) * 2
    if min(kernel) < 1 or min(strides) < 1 or min(pads) < 0:
        raise shape_error(node, f"kernel {kernel}, strides {strides}, padding {pads}")
    return kernel, strides, pads


def _windows(
    node: Node, given: Shape, kernel: list[int], strides: list[int], pads: list[int], dilations: list[int]
) -> Shape:
    n = len(given)
    out = tuple(
        (size + pads[i] + pads[i + n] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i, size in enumerate(given)
    )
    if min(out) < 1:
        raise shape_error(node, f"a kernel of {kernel} does not fit into {list(given)}")
    return out


def _flatten(node: Node, given: Shape) -> Shape:
    (start,), (end,) = node.integers("start_dim", 1), node.integers("end_dim", 1)
    rank = len(given)
    first, last = (d + rank if d < 0 else d for d in (start, end))
    if rank and (not 0 <= first < rank or not first <= last < rank):
        raise shape_error(node, f"axes {start} to {end} of an input of shape {list(given)}")
    return (*given[:first], prod(given[first : last + 1]), *given[last + 1 :]) if rank else (1,)


_ELEMENTWISE = ("Scale", "Threshold", "Delay", "I", "IF", "LI", "LIF", "CubaLI", "CubaLIF")
_OUTPUT: dict[str, Callable[[Node, Shape], Shape]] = {
    "Input": _input,
    "Output": _same,
    "Linear": _linear,
    "Affine": _linear,
    "Conv1d": _conv,
    "Conv2d": _conv,
    "SumPool2d": _pool,
    "AvgPool2d": _pool,
    "Flatten": _flatten,
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
}

"""Operators that change a tensor's shape or say what it is; none computes with the elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.ir import SSAValue
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dims import Dim, product
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.onnx_types import ELEMENT_OF_ONNX, attribute_array
from neuc.dialects.store import numpy_dtype
from neuc.passes.onnx_lowerings.builder import ARITHMETIC, Builder, Rule, Unsupported
from neuc.passes.scalar_builder import where

Results = Sequence[SSAValue | None]


def _target(build: Builder, shape: SSAValue | None, given: Sequence[int] | None, what: str) -> tuple[Dim, ...]:
    """A shape from an attribute (old opsets) or from an input whose elements are known."""
    if given is not None:
        return tuple(Dim.of(d) for d in given)
    found = None if shape is None else build.integers(shape)
    if found is None:
        raise Unsupported(f"{what} is computed at run time")
    return found


def lower_reshape(node: OnnxOp, build: Builder) -> Results:
    """Reshape: 0 keeps a dim (unless allowzero), one -1 takes the rest."""
    x = build.operand(0)
    dims = build.dims(x)
    try:
        wanted = list(_target(build, node.operand_at(1), node.ints_attribute("shape"), "shape"))
    except Unsupported:
        # The elements are not known, but shape inference may have found the result.
        known = set().union(*(d.symbols for d in dims))
        declared = build.result_dims()
        if not all(d.symbols <= known for d in declared):
            raise
        wanted = list(declared)
    if not node.int_attribute("allowzero", 0):
        if any(d == 0 and i >= len(dims) for i, d in enumerate(wanted)):
            raise Unsupported("a shape that keeps more dims than there are")
        wanted = [dims[i] if d == 0 else d for i, d in enumerate(wanted)]
    if Dim.of(-1) in wanted:
        at = wanted.index(Dim.of(-1))
        rest = product(wanted[:at] + wanted[at + 1 :])
        if rest == 0:
            raise Unsupported("-1 beside a dim of 0")
        wanted[at] = product(dims) // rest
    return [build.reshape(x, wanted)]


def lower_flatten(node: OnnxOp, build: Builder) -> Results:
    """Flatten to two axes."""
    dims = build.dims(build.operand(0))
    axis = node.int_attribute("axis", 1)
    axis = axis + len(dims) if axis < 0 else axis
    return [build.reshape(build.operand(0), (product(dims[:axis]), product(dims[axis:])))]


def _axes(node: OnnxOp, build: Builder, rank: int) -> tuple[int, ...] | None:
    """Axes from input 1 or the attribute; None if there are none."""
    given = node.operand_at(1)
    axes = node.ints_attribute("axes") if given is None else build.static_integers(given, "axes")
    return None if axes is None else tuple(build.axis(a, rank) for a in axes)


def lower_squeeze(node: OnnxOp, build: Builder) -> Results:
    """Squeeze the given axes, or every axis of size 1."""
    dims = build.dims(build.operand(0))
    axes = _axes(node, build, len(dims))
    if axes is None:
        if not all(d.is_static for d in dims):
            raise Unsupported("squeezing axes of unknown size")
        axes = tuple(i for i, d in enumerate(dims) if d == 1)
    return [build.reshape(build.operand(0), [d for i, d in enumerate(dims) if i not in axes])]


def lower_unsqueeze(node: OnnxOp, build: Builder) -> Results:
    """Unsqueeze."""
    dims = list(build.dims(build.operand(0)))
    count = node.operand_at(1)
    given = node.ints_attribute("axes") if count is None else build.static_integers(count, "axes")
    rank = len(dims) + len(given or ())
    for axis in sorted(build.axis(a, rank) for a in given or ()):
        dims.insert(axis, Dim.of(1))
    return [build.reshape(build.operand(0), dims)]


def lower_transpose(node: OnnxOp, build: Builder) -> Results:
    """Transpose; without perm, all axes backwards."""
    rank = len(build.dims(build.operand(0)))
    return [build.transpose(build.operand(0), node.ints_attribute("perm") or range(rank)[::-1])]


def lower_expand(node: OnnxOp, build: Builder) -> Results:
    """Expand, which broadcasts in both directions."""
    x = build.operand(0)
    try:
        wanted = shapes.broadcast([build.dims(x), _target(build, build.operand(1), None, "shape")])
    except VerifyException as error:
        raise Unsupported(str(error)) from error
    return [build.broadcast(x, wanted)]


def lower_tile(node: OnnxOp, build: Builder) -> Results:
    """Tile: a new axis before each, repeated."""
    x = build.operand(0)
    dims, repeats = build.dims(x), _target(build, build.operand(1), None, "repeats")
    if len(repeats) != len(dims):
        raise Unsupported(f"{len(repeats)} repeats of {len(dims)} axes")
    if all(r == 1 for r in repeats):
        return [x]
    apart = build.reshape(x, [d for dim in dims for d in (1, dim)])
    repeated = build.broadcast(apart, [d for pair in zip(repeats, dims) for d in pair])
    return [build.reshape(repeated, [d * r for d, r in zip(dims, repeats)])]


def _dims_result(node: OnnxOp, build: Builder, dims: Sequence[Dim]) -> Results:
    return [build.integer_tensor(dims, node.results[0].type)]


def lower_shape(node: OnnxOp, build: Builder) -> Results:
    """Shape, of all or some axes."""
    dims = build.dims(build.operand(0))
    end = node.attribute("end")
    return _dims_result(node, build, dims[node.int_attribute("start", 0) : end if isinstance(end, int) else None])


def lower_size(node: OnnxOp, build: Builder) -> Results:
    """Size."""
    return _dims_result(node, build, [product(build.dims(build.operand(0)))])


def lower_constant(node: OnnxOp, build: Builder) -> Results:
    """Constant, in each of its spellings for numbers."""
    for name in ("value_float", "value_floats", "value_int", "value_ints"):
        value = node.attribute(name)
        if value is not None:
            return [build.constant(np.array(value, np.float32 if "float" in name else np.int64), "value")]
    tensor = node.attributes.get("value")
    array = None if tensor is None else attribute_array(tensor, build.store)
    if array is None:
        raise Unsupported("a constant that is not numbers")
    return [build.constant(array, "value")]


def lower_constant_of_shape(node: OnnxOp, build: Builder) -> Results:
    """ConstantOfShape."""
    tensor = node.attributes.get("value")
    array = np.zeros(1, np.float32) if tensor is None else attribute_array(tensor, build.store)
    if array is None:
        raise Unsupported("a value that is no number")
    dims = _target(build, build.operand(0), None, "shape")
    return [build.broadcast(build.constant(array.reshape(()), "value"), dims)]


def lower_range(node: OnnxOp, build: Builder) -> Results:
    """Range of constants."""
    start, limit, delta = (build.array(build.operand(i)) for i in range(3))
    if start is None or limit is None or delta is None:
        known = [build.integers(build.operand(i)) for i in range(3)]
        if any(k is None or len(k) != 1 or not k[0].is_static for k in known):
            raise Unsupported("bounds computed at run time")
        dtype = numpy_dtype(build.node.results[0].type.get_element_type())  # pyright: ignore
        start, limit, delta = (np.array(k[0].value, dtype) for k in known if k is not None)
    bounds = [a.reshape(-1)[0] for a in (start, limit, delta)]
    return [build.constant(np.arange(*bounds, dtype=start.dtype), "range")]


def lower_eye_like(node: OnnxOp, build: Builder) -> Results:
    """EyeLike of a known shape."""
    dims = build.result_dims()
    element = node.attribute("dtype")
    dtype = numpy_dtype(ELEMENT_OF_ONNX[element] if isinstance(element, int) else node.operands[0].type.element_type)  # pyright: ignore
    if dtype is None or not all(d.is_static for d in dims):
        raise Unsupported("an unknown shape or element type")
    return [build.constant(np.eye(dims[0].value, dims[1].value, node.int_attribute("k", 0), dtype), "eye")]


def _blocks(node: OnnxOp, build: Builder) -> tuple[SSAValue, tuple[Dim, ...], int]:
    x = build.operand(0)
    dims, block = build.dims(x), node.int_attribute("blocksize")
    if len(dims) != 4:
        raise Unsupported(f"input of rank {len(dims)}")
    return x, dims, block


def lower_depth_to_space(node: OnnxOp, build: Builder) -> Results:
    """DepthToSpace, modes DCR and CRD."""
    x, (n, c, h, w), b = _blocks(node, build)
    depth = c // (b * b)
    if node.str_attribute("mode", "DCR") == "DCR":
        parts = build.transpose(build.reshape(x, (n, b, b, depth, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        parts = build.transpose(build.reshape(x, (n, depth, b, b, h, w)), (0, 1, 4, 2, 5, 3))
    return [build.reshape(parts, (n, depth, h * b, w * b))]


def lower_space_to_depth(node: OnnxOp, build: Builder) -> Results:
    """SpaceToDepth; modes DCR and, since opset 27, CRD."""
    x, (n, c, h, w), b = _blocks(node, build)
    order = (0, 3, 5, 1, 2, 4) if node.str_attribute("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    parts = build.transpose(build.reshape(x, (n, c, h // b, b, w // b, b)), order)
    return [build.reshape(parts, (n, c * b * b, h // b, w // b))]


def lower_trilu(node: OnnxOp, build: Builder) -> Results:
    """Trilu of matrices of known size: select by a constant triangle."""
    x = build.operand(0)
    build.require(ARITHMETIC, x)
    dims, given = build.dims(x), node.operand_at(1)
    k = 0 if given is None else build.static_integers(given, "k")[0]
    if not all(d.is_static for d in dims[-2:]):
        raise Unsupported("matrices of unknown size")
    ones = np.ones((dims[-2].value, dims[-1].value), np.bool_)
    mask = build.constant(np.triu(ones, k) if node.int_attribute("upper", 1) else np.tril(ones, k), "triangle")
    return [build.map([mask, x], lambda keep, v: where(keep, v, 0), dims)]


RULES: dict[str, Rule] = {
    "Reshape": lower_reshape,
    "Flatten": lower_flatten,
    "Squeeze": lower_squeeze,
    "Unsqueeze": lower_unsqueeze,
    "Transpose": lower_transpose,
    "Expand": lower_expand,
    "Tile": lower_tile,
    "Shape": lower_shape,
    "Size": lower_size,
    "Constant": lower_constant,
    "ConstantOfShape": lower_constant_of_shape,
    "Range": lower_range,
    "EyeLike": lower_eye_like,
    "DepthToSpace": lower_depth_to_space,
    "SpaceToDepth": lower_space_to_depth,
    "Trilu": lower_trilu,
}

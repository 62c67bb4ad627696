"""Contents of small integer tensors as expressions over symbols: how shapes travel through a model as data.

A rule gives the contents of each result, or None. It may assume that sizes are at least 1 only where it says so.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neuc.dialects.dims import Dim, product
from neuc.dialects.onnx import OnnxOp
from neuc.passes.analysis.symbolic_facts import MAX_CONTENTS, Contents, Facts, bounds, not_negative, object_array
from neuc.passes.analysis.symbolic_rules import axis_of, reduction_axes
from neuc.passes.analysis.symbolic_rules_movement import FAR, given_axes, shape_range, slice_bounds

ContentsRule = Callable[[OnnxOp, Facts], "list[Contents | None] | None"]

TRUE, FALSE = Dim.of(1), Dim.of(0)


class Undecided(Exception):
    """An element depends on symbols in a way expressions cannot say."""


def find_contents(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    """Contents of the results of `op`, if there is a rule and it can tell."""
    rule = CONTENTS.get(op.op_type) if not op.domain else None
    if rule is None:
        return None
    try:
        found = rule(op, facts)
    except (Undecided, IndexError, ValueError, ZeroDivisionError):
        # out-of-range indices and the like: the operator fails at run time too, nothing is known
        return None
    if found is None:
        return None
    return [None if c is None or c.size > MAX_CONTENTS else c for c in found]


def _shape(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    shape = facts.shape(op.operands[0])
    if shape is None:
        return None
    dims = shape[shape_range(op, len(shape))]
    known = [dim for dim in dims if dim is not None]
    return [object_array(known, (len(known),))] if len(known) == len(dims) else None


def _size(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    shape = facts.shape(op.operands[0])
    if shape is None or any(dim is None for dim in shape):
        return None
    return [object_array([product(dim for dim in shape if dim is not None)], ())]


def _same(op: OnnxOp, facts: Facts) -> list[Contents | None]:
    return [facts.content(op.operands[0])]


def _cast(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    known = facts.content(op.operands[0])
    if known is None:
        return None
    if op.int_attribute("to") == 9:  # to bool
        return [_map(lambda d: _truth(d != 0 if d.is_static else _nonzero(d)), known)]
    low, high = _RANGES.get(op.int_attribute("to"), (-(2**63), 2**63 - 1))
    if any(d.is_static and not low <= d.value <= high for d in known.reshape(-1)):
        return None  # wraps around
    return [known]


# What narrow integer types hold, by ONNX's element type number.
_RANGES = {
    2: (0, 2**8 - 1), 3: (-(2**7), 2**7 - 1), 4: (0, 2**16 - 1), 5: (-(2**15), 2**15 - 1), 6: (-(2**31), 2**31 - 1),
    12: (0, 2**32 - 1), 13: (0, 2**64 - 1),
}  # fmt: skip


def _nonzero(dim: Dim) -> bool:
    low, high = bounds(dim)
    if low > 0 or high < 0:
        return True
    raise Undecided


def _truth(value: bool) -> Dim:
    return TRUE if value else FALSE


def _map(function: Callable[..., Dim], *arrays: Contents) -> Contents:
    spread = np.broadcast_arrays(*arrays)
    if spread[0].size > MAX_CONTENTS:
        raise Undecided
    items = [function(*values) for values in zip(*(a.reshape(-1) for a in spread))]
    return object_array(items, spread[0].shape)


def _elementwise(function: Callable[..., Dim]) -> ContentsRule:
    def rule(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
        known = [facts.content(value) for value in op.operands]
        arrays = [a for a in known if a is not None]
        return [_map(function, *arrays)] if len(arrays) == len(known) else None

    return rule


def _divide(a: Dim, b: Dim) -> Dim:
    """Division of integers truncates, `//` rounds down: the same where neither is negative (sizes at least 1)."""
    if a.is_static and b.is_static:
        quotient = abs(a.value) // abs(b.value)
        return Dim.of(quotient if (a.value < 0) == (b.value < 0) else -quotient)
    if not not_negative(a) or bounds(b, 1)[0] <= 0:
        raise Undecided
    return a // b


def _float_divide_guard(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    if _is_float(op):
        return None
    return _elementwise(_divide)(op, facts)


def _is_float(op: OnnxOp) -> bool:
    element = getattr(op.operands[0].type, "element_type", None)
    return element is None or "f" in str(element)


def _modulo(a: Dim, b: Dim) -> Dim:
    if not not_negative(a) or bounds(b, 1)[0] <= 0:
        raise Undecided
    return a - (a // b) * b


def _equal(a: Dim, b: Dim) -> Dim:
    difference = a - b
    if difference == 0:
        return TRUE
    low, high = bounds(difference)
    if low > 0 or high < 0:
        return FALSE
    raise Undecided


def _less(a: Dim, b: Dim) -> Dim:
    low, high = bounds(a - b)
    if high < 0 or low >= 0:
        return _truth(high < 0)
    raise Undecided


def _not(a: Dim) -> Dim:
    return _truth(a == 0)


def _absolute(a: Dim) -> Dim:
    if not not_negative(a, 0):
        raise Undecided
    return a


def _fold(function: Callable[[Dim, Dim], Dim]) -> Callable[..., Dim]:
    def folded(*values: Dim) -> Dim:
        total = values[0]
        for value in values[1:]:
            total = function(total, value)
        return total

    return folded


def _where(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    condition, yes, no = (facts.content(value) for value in op.operands)
    if condition is None or any(not d.is_static for d in condition.reshape(-1)):
        return None
    if yes is None or no is None:  # one side is enough when it is always chosen
        values = {d.value for d in condition.reshape(-1)}
        side = yes if values == {1} else no if values == {0} else None
        shape = facts.shape(op.results[0])
        return [side] if side is not None and shape == tuple(Dim.of(n) for n in side.shape) else None
    return [_map(lambda c, a, b: a if c.value else b, condition, yes, no)]


def _reshape(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    known = facts.content(op.operands[0])
    shape = facts.shape(op.results[0])
    if known is None or shape is None:
        return None
    sizes = [dim.value for dim in shape if dim is not None and dim.is_static]
    return [known.reshape(sizes)] if len(sizes) == len(shape) else None


def _transpose(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    known = facts.content(op.operands[0])
    return None if known is None else [known.transpose(op.ints_attribute("perm"))]


def _concat(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    known = [facts.content(value) for value in op.operands]
    arrays = [a for a in known if a is not None]
    if len(arrays) != len(known):
        return None
    return [np.concatenate(arrays, axis=op.int_attribute("axis", 1))]


def _gather(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    known, indices = facts.content(op.operands[0]), facts.ints(op.operands[1])
    where = facts.content(op.operands[1])
    if known is None or indices is None or where is None:
        return None
    positions = np.array(indices, np.int64).reshape(where.shape)
    taken = np.take(known, positions, axis=op.int_attribute("axis", 0))
    return [taken if isinstance(taken, np.ndarray) else object_array([taken], ())]


def _slice(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    known, given = facts.content(op.operands[0]), slice_bounds(op, facts)
    if known is None or given is None:
        return None
    starts, ends, axes, steps = given
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    cut: list[slice] = [slice(None)] * known.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps):
        if not start.is_static or not end.is_static:
            return None
        last = None if step < 0 and end.value <= -FAR else end.value
        cut[axis_of(axis, known.ndim)] = slice(start.value, last, step)
    return [known[tuple(cut)]]


def _split(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    known = facts.content(op.operands[0])
    if known is None:
        return None
    axis = axis_of(op.int_attribute("axis", 0), known.ndim)
    sizes: list[int] = []
    for result in op.results:
        shape = facts.shape(result)
        dim = None if shape is None else shape[axis]
        if dim is None or not dim.is_static:
            return None
        sizes.append(dim.value)
    return list(np.split(known, np.cumsum(sizes)[:-1], axis=axis))


def _reduce(function: Callable[[Dim, Dim], Dim], empty: Dim | None) -> ContentsRule:
    def rule(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
        known = facts.content(op.operands[0])
        if known is None:
            return None
        axes = reduction_axes(op, facts, known.ndim)
        if axes is None or len(axes) != known.ndim:
            return None  # only whole tensors: that is what shape arithmetic does
        items = list(known.reshape(-1))
        if not items and empty is None:
            return None
        total = _fold(function)(*items) if items else empty
        assert total is not None
        keep = op.int_attribute("keepdims", 1) == 1
        return [object_array([total], (1,) * known.ndim if keep else ())]

    return rule


def _range(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    bounds_ = [facts.ints(value) for value in op.operands]
    if any(b is None for b in bounds_) or _is_float(op):
        return None
    start, limit, delta = (b[0] for b in bounds_ if b is not None)
    numbers = range(start, limit, delta)
    if len(numbers) > MAX_CONTENTS:
        return None
    return [object_array([Dim.of(n) for n in numbers], (len(numbers),))]


def _constant_of_shape(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    sizes = facts.ints(op.operand_at(0))
    value = op.attribute("value")
    if sizes is None or product(sizes).value > MAX_CONTENTS:
        return None
    filler = Dim.of(0)
    if value is not None:
        values = getattr(value, "get_values", tuple)()
        if len(values) != 1 or float(values[0]) != int(values[0]):
            return None
        filler = Dim.of(int(values[0]))
    return [object_array([filler] * product(sizes).value, sizes)]


def _expand(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    known, target = facts.content(op.operands[0]), facts.ints(op.operand_at(1))
    if known is None or target is None or product(target).value > MAX_CONTENTS:
        return None
    return [np.broadcast_to(known, np.broadcast_shapes(known.shape, tuple(target))).copy()]


def _tile(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    known, repeats = facts.content(op.operands[0]), facts.ints(op.operand_at(1))
    if known is None or repeats is None or known.size * product(repeats).value > MAX_CONTENTS:
        return None
    return [np.tile(known, repeats)]


def _squeeze(op: OnnxOp, facts: Facts) -> list[Contents | None] | None:
    known, axes = facts.content(op.operands[0]), given_axes(op, facts, 1)
    if known is None or (axes is None and op.operand_at(1) is not None):
        return None
    return [np.squeeze(known, None if axes is None else tuple(axes))]


CONTENTS: dict[str, ContentsRule] = {
    "Abs": _elementwise(_absolute),
    "Add": _elementwise(lambda a, b: a + b),
    "And": _elementwise(lambda a, b: _truth(a != 0 and b != 0)),
    "Cast": _cast,
    "Ceil": _same,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _float_divide_guard,
    "Equal": _elementwise(_equal),
    "Expand": _expand,
    "Flatten": _reshape,
    "Floor": _same,
    "Gather": _gather,
    "Greater": _elementwise(lambda a, b: _less(b, a)),
    "GreaterOrEqual": _elementwise(lambda a, b: _not(_less(a, b))),
    "Identity": _same,
    "Less": _elementwise(_less),
    "LessOrEqual": _elementwise(lambda a, b: _not(_less(b, a))),
    "Max": _elementwise(_fold(lambda a, b: a.maximum(b))),
    "Min": _elementwise(_fold(lambda a, b: a.minimum(b))),
    "Mod": _elementwise(_modulo),
    "Mul": _elementwise(lambda a, b: a * b),
    "Neg": _elementwise(lambda a: -a),
    "Not": _elementwise(_not),
    "Or": _elementwise(lambda a, b: _truth(a != 0 or b != 0)),
    "Range": _range,
    "ReduceMax": _reduce(lambda a, b: a.maximum(b), None),
    "ReduceMin": _reduce(lambda a, b: a.minimum(b), None),
    "ReduceProd": _reduce(lambda a, b: a * b, Dim.of(1)),
    "ReduceSum": _reduce(lambda a, b: a + b, Dim.of(0)),
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _elementwise(lambda a, b: a - b),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
    "Where": _where,
}

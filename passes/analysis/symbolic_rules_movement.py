"""Shapes of results for operators that move data: reshape, transpose, slice, gather, concat, split, pad, expand …"""

from __future__ import annotations

from collections.abc import Sequence

from neuc.dialects.dims import Dim, product
from neuc.dialects.onnx import OnnxOp
from neuc.passes.analysis.symbolic_facts import Contradiction, Facts, Shape, bounds, not_negative
from neuc.passes.analysis.symbolic_rules import ONE, Rule, axis_of, broadcast, rank_after, require_equal

FAR = 2**31 - 1
"""Slice bounds from here on mean "to the end", whatever the size."""

ZERO = Dim.of(0)


def unknown(rank: int | None) -> Shape | None:
    """A shape of which only the rank is known."""
    return None if rank is None else (None,) * rank


def length_of(facts: Facts, op: OnnxOp, index: int) -> int | None:
    """The number of elements of a one-dimensional operand, which is the rank of what it describes."""
    shape = facts.shape(op.operand_at(index))
    if shape is None or len(shape) != 1 or shape[0] is None or not shape[0].is_static:
        return None
    return shape[0].value


def given_axes(op: OnnxOp, facts: Facts, index: int) -> Sequence[int] | None:
    """Axes from the attribute (older opsets) or from input `index`; None if there are none or they are computed."""
    axes = op.ints_attribute("axes")
    return axes if axes is not None else facts.ints(op.operand_at(index))


def _reshape(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    target = facts.dims(op.operand_at(1))
    given = op.ints_attribute("shape")
    if given is not None:
        target = [Dim.of(d) for d in given]
    shape = facts.shape(op.operands[0])
    if target is None:
        return [unknown(length_of(facts, op, 1))]
    keeps_zero = op.attribute("allowzero") == 1
    sizes: list[Dim | None] = []
    inferred: int | None = None
    for index, dim in enumerate(target):
        if dim == -1:
            if inferred is not None:
                raise Contradiction("a reshape to two inferred dims")
            inferred = index
            sizes.append(None)
        elif dim == 0 and not keeps_zero:
            if shape is not None and index >= len(shape):
                raise Contradiction(f"a reshape copies dim {index} of a tensor of rank {len(shape)}")
            sizes.append(None if shape is None else shape[index])
        else:
            sizes.append(dim)
    if shape is not None and inferred is not None:
        sizes[inferred] = _remaining(shape, sizes, inferred)
    elif shape is not None:
        before, after = _cancelled(shape, sizes)
        if None not in before and None not in after:
            old, new = (product(d for d in dims if d is not None) for dims in (before, after))
            require_equal(old, new, "a reshape changes the number of elements")
    return [tuple(sizes)]


def _remaining(shape: Shape, sizes: list[Dim | None], inferred: int) -> Dim | None:
    """What is left for the inferred dim; dims common to both sides cancel even when others are unknown."""
    before, after = _cancelled(shape, [d for i, d in enumerate(sizes) if i != inferred])
    known_before = [d for d in before if d is not None]
    known_after = [d for d in after if d is not None]
    if len(known_before) != len(before) or len(known_after) != len(after):
        return None
    total, divisor = product(known_before), product(known_after)
    if divisor.is_static and divisor.value == 0:
        return None
    if total.is_static and divisor.is_static and total.value % divisor.value:
        raise Contradiction(f"a reshape splits {total} elements by {divisor}")
    return total // divisor


def _cancelled(before: Shape, after: Sequence[Dim | None]) -> tuple[list[Dim | None], list[Dim | None]]:
    """Both lists without the dims they share."""
    left, right = list(before), list(after)
    for dim in after:
        if dim is not None and dim in left and dim != 0:
            left.remove(dim)
            right.remove(dim)
    return left, right


def _flatten(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    shape = facts.shape(op.operands[0])
    if shape is None:
        return [(None, None)]
    axis = op.int_attribute("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    sides: list[Dim | None] = []
    for part in (shape[:axis], shape[axis:]):
        known = [d for d in part if d is not None]
        sides.append(product(known) if len(known) == len(part) else None)
    return [tuple(sides)]


def _transpose(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    shape = facts.shape(op.operands[0])
    if shape is None:
        return [None]
    perm = op.ints_attribute("perm") or tuple(reversed(range(len(shape))))
    if sorted(perm) != list(range(len(shape))):
        raise Contradiction(f"perm {list(perm)} of a tensor of rank {len(shape)}")
    return [tuple(shape[axis] for axis in perm)]


def _squeeze(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    shape, axes = facts.shape(op.operands[0]), given_axes(op, facts, 1)
    if shape is None:
        return [None]
    if axes is None:
        if op.operand_at(1) is not None:
            return [unknown(rank_after(facts, op, len(shape), -1))]
        if any(d is None or not d.is_static for d in shape):
            return [None]  # which dims are 1 is only known at run time
        return [tuple(d for d in shape if d != ONE)]
    dropped = {axis_of(axis, len(shape)) for axis in axes}
    for axis in dropped:
        require_equal(shape[axis], ONE, "squeeze of a dim that is not 1")
    return [tuple(d for i, d in enumerate(shape) if i not in dropped)]


def _unsqueeze(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    shape, axes = facts.shape(op.operands[0]), given_axes(op, facts, 1)
    if shape is None:
        return [None]
    if axes is None:
        return [unknown(rank_after(facts, op, len(shape), 1))]
    rank = len(shape) + len(axes)
    added = {axis_of(axis, rank) for axis in axes}
    if len(added) != len(axes):
        raise Contradiction(f"unsqueeze repeats an axis in {list(axes)}")
    rest = iter(shape)
    return [tuple(ONE if i in added else next(rest) for i in range(rank))]


def _concat(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    shapes = [facts.shape(value) for value in op.operands]
    known = [shape for shape in shapes if shape is not None]
    if not known:
        return [None]
    rank = len(known[0])
    if any(len(shape) != rank for shape in known):
        raise Contradiction("concat of tensors of different ranks")
    axis = axis_of(op.int_attribute("axis", 1), rank)
    result: list[Dim | None] = []
    for i in range(rank):
        dims = [shape[i] for shape in known]
        if i == axis:
            sure = [d for d in dims if d is not None]
            result.append(sum(sure[1:], sure[0]) if len(sure) == len(shapes) else None)
        else:
            for dim in dims[1:]:
                require_equal(dims[0], dim, f"dim {i} of the inputs of a concat")
            result.append(next((d for d in dims if d is not None and d.is_static), dims[0]))
    return [tuple(result)]


def _split(op: OnnxOp, facts: Facts) -> Sequence[Shape | None] | None:
    shape = facts.shape(op.operands[0])
    count = len(op.results)
    if shape is None:
        return [None] * count
    axis = axis_of(op.int_attribute("axis", 0), len(shape))
    sizes: Sequence[Dim | None]
    given = op.ints_attribute("split")
    known = [Dim.of(d) for d in given] if given is not None else facts.dims(op.operand_at(1))
    size = shape[axis]
    if known is not None:
        if len(known) != count:
            raise Contradiction(f"split into {len(known)} sizes but {count} results")
        require_equal(size, sum(known[1:], known[0]), "the sizes of a split and the dim")
        sizes = known
    elif op.operand_at(1) is not None or size is None:
        sizes = [None] * count
    else:
        chunk = size.ceildiv(count)
        sizes = [chunk] * (count - 1) + [size - chunk * (count - 1)]
    return [(*shape[:axis], part, *shape[axis + 1 :]) for part in sizes]


def slice_bounds(op: OnnxOp, facts: Facts) -> tuple[list[Dim], list[Dim], list[int] | None, list[int] | None] | None:
    """Starts, ends, axes, steps of a Slice; None if starts or ends are computed in a way unknown here."""
    starts, ends = op.ints_attribute("starts"), op.ints_attribute("ends")
    if starts is not None and ends is not None:
        axes = op.ints_attribute("axes")
        return [Dim.of(d) for d in starts], [Dim.of(d) for d in ends], None if axes is None else list(axes), None
    first, last = facts.dims(op.operand_at(1)), facts.dims(op.operand_at(2))
    axes, steps = facts.ints(op.operand_at(3)), facts.ints(op.operand_at(4))
    unclear = (op.operand_at(3) is not None and axes is None) or (op.operand_at(4) is not None and steps is None)
    if first is None or last is None or unclear:
        return None
    return first, last, axes, steps


def clamp(bound: Dim, size: Dim, low: Dim, high: Dim) -> Dim:
    """A slice bound counted from the begin, inside [low, high]; negative bounds count from the end."""
    if bound.is_static and bound.value >= FAR:
        return high
    if bound.is_static and bound.value <= -FAR:
        return low
    if bounds(bound, 1)[1] < 0:
        bound = bound + size
    elif not not_negative(bound):
        raise LookupError  # its sign, and so its meaning, is only known at run time
    if not not_negative(bound - low):
        bound = bound.maximum(low)
    return bound if not_negative(high - bound) else bound.minimum(high)


def slice_size(size: Dim | None, start: Dim, end: Dim, step: int) -> Dim | None:
    """The number of elements a slice of one dim has.

    Raises:
        Contradiction: the step is 0.
    """
    if step == 0:
        raise Contradiction("a slice with step 0")
    if size is None:
        return None
    try:
        if step > 0:
            first, last = clamp(start, size, ZERO, size), clamp(end, size, ZERO, size)
            count = (last - first).ceildiv(step)
        else:
            first = clamp(start, size, ZERO, size - 1)
            last = Dim.of(-1) if end.is_static and end.value <= -FAR else clamp(end, size, Dim.of(-1), size - 1)
            count = (first - last).ceildiv(-step)
    except LookupError:
        return None
    return count if not_negative(count) else count.maximum(0)


def _slice(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    shape = facts.shape(op.operands[0])
    if shape is None:
        return [None]
    given = slice_bounds(op, facts)
    if given is None:
        axes = facts.ints(op.operand_at(3))
        if axes is None:
            return [unknown(len(shape))]
        cut = {axis_of(axis, len(shape)) for axis in axes}
        return [tuple(None if i in cut else d for i, d in enumerate(shape))]
    starts, ends, axes, steps = given
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise Contradiction("starts, ends, axes and steps of a slice have different lengths")
    result = list(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps):
        i = axis_of(axis, len(shape))
        result[i] = slice_size(shape[i], start, end, step)
    return [tuple(result)]


def _gather(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    data, indices = facts.shape(op.operands[0]), facts.shape(op.operands[1])
    if data is None or indices is None:
        return [None]
    axis = axis_of(op.int_attribute("axis", 0), len(data))
    return [data[:axis] + indices + data[axis + 1 :]]


def _gather_elements(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    return [facts.shape(op.operands[1])]


def _gather_nd(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    data, indices = facts.shape(op.operands[0]), facts.shape(op.operands[1])
    if data is None or not indices or indices[-1] is None or not indices[-1].is_static:
        return [None]
    return [indices[:-1] + data[op.int_attribute("batch_dims", 0) + indices[-1].value :]]


def _expand(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    shape, target = facts.shape(op.operands[0]), facts.dims(op.operand_at(1))
    if shape is None or target is None:
        length = length_of(facts, op, 1)
        return [unknown(None if shape is None or length is None else max(length, len(shape)))]
    return [broadcast([shape, tuple(target)])]


def _tile(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    shape, repeats = facts.shape(op.operands[0]), facts.dims(op.operand_at(1))
    if shape is None or repeats is None:
        return [unknown(None if shape is None else len(shape))]
    if len(repeats) != len(shape):
        raise Contradiction(f"{len(repeats)} repeats for a tensor of rank {len(shape)}")
    return [tuple(None if d is None else d * r for d, r in zip(shape, repeats))]


def _pad(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    shape = facts.shape(op.operands[0])
    if shape is None:
        return [None]
    given = op.ints_attribute("pads")
    pads = [Dim.of(d) for d in given] if given is not None else facts.dims(op.operand_at(1))
    axes = list(range(len(shape)))
    if op.operand_at(3) is not None:
        known = facts.ints(op.operand_at(3))
        if known is None:
            return [unknown(len(shape))]
        axes = [axis_of(axis, len(shape)) for axis in known]
    if pads is None:
        return [tuple(None if i in axes else d for i, d in enumerate(shape))]
    if len(pads) != 2 * len(axes):
        raise Contradiction(f"{len(pads)} pads for {len(axes)} axes")
    result = list(shape)
    for position, axis in enumerate(axes):
        dim = result[axis]
        result[axis] = None if dim is None else dim + pads[position] + pads[position + len(axes)]
    return [tuple(result)]


def _shape_of(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    rank = facts.rank(op.operands[0])
    if rank is None:
        return [(None,)]
    return [(Dim.of(len(range(rank)[shape_range(op, rank)])),)]


def shape_range(op: OnnxOp, rank: int) -> slice:
    """The dims a Shape operator reads."""
    end = op.attribute("end")
    return slice(op.int_attribute("start", 0), end if isinstance(end, int) else rank)


def _scalar(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    return [()]


def _constant_of_shape(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    dims = facts.dims(op.operand_at(0))
    return [tuple(dims) if dims is not None else unknown(length_of(facts, op, 0))]


def _range(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    start, limit, delta = (facts.dims(value) for value in op.operands[:3])
    if not start or not limit or not delta or not delta[0].is_static or delta[0].value == 0:
        return [(None,)]
    step, reach = delta[0].value, limit[0] - start[0]
    count = reach.ceildiv(step) if step > 0 else (-reach).ceildiv(-step)
    return [(count if not_negative(count) else count.maximum(0),)]


def _one_hot(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    indices, depth = facts.shape(op.operands[0]), facts.dims(op.operand_at(1))
    if indices is None:
        return [None]
    axis = axis_of(op.int_attribute("axis", -1), len(indices) + 1)
    return [(*indices[:axis], depth[0] if depth else None, *indices[axis:])]


MOVEMENT_RULES: dict[str, Rule] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape_of,
    "Size": _scalar,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}

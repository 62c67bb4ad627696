"""Shapes of results for operators that compute: element-wise, products, reductions, normalisations, recurrences.

A rule takes an operation and what is known and gives a shape for each result. Operators that only move data are in
`symbolic_rules_movement.py`, windows in `symbolic_rules_window.py`. Operators without a rule are ONNX's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from neuc.dialects.dims import Dim
from neuc.dialects.onnx import OnnxOp
from neuc.passes.analysis.symbolic_facts import Contradiction, Facts, Shape

Rule = Callable[[OnnxOp, Facts], "Sequence[Shape | None] | None"]

ONE = Dim.of(1)

# Results have the shape of the first operand.
_LIKE_FIRST = """
Abs Acos Acosh Asin Asinh Atan Atanh BatchNormalization Bernoulli BitCast BitwiseNot Cast CastLike Ceil Celu Clip
Cos Cosh CumProd CumSum DequantizeLinear Dropout Elu Erf Exp EyeLike Floor Gelu GroupNormalization HardSigmoid
HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN LeakyRelu Log LogSoftmax LpNormalization
MeanVarianceNormalization Mish Neg Not PRelu QuantizeLinear RMSNormalization RandomNormalLike RandomUniformLike
Reciprocal Relu ReverseSequence RotaryEmbedding Round Scatter ScatterElements ScatterND Selu Shrink Sigmoid Sign
Sin Sinh Softmax Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Trilu
""".split()
_BROADCAST = """
Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod
Mul Or Pow Sub Sum Where Xor
""".split()
_REDUCE = """
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
""".split()


# With one scale for the whole tensor their axis means nothing, and its default may be out of range.
_AXIS_MAY_BE_IDLE = frozenset(("QuantizeLinear", "DequantizeLinear"))


def broadcast_dim(a: Dim | None, b: Dim | None) -> Dim | None:
    """The dim two broadcast to.

    Raises:
        Contradiction: both are numbers, differ, and neither is 1.
    """
    if a is None or b is None:
        sure = b if a is None else a
        return sure if sure is not None and sure.is_static and sure.value > 1 else None
    if a == b or b == ONE:
        return a
    if a == ONE:
        return b
    if a.is_static and b.is_static:
        raise Contradiction(f"dims {a} and {b} do not broadcast")
    if a.is_static or b.is_static:
        return a if a.is_static else b
    return a.maximum(b)


def broadcast(shapes: Sequence[Shape | None]) -> Shape | None:
    """The shape several broadcast to.

    Raises:
        Contradiction: they do not.
    """
    result: Shape = ()
    for shape in shapes:
        if shape is None:
            return None
        rank = max(len(result), len(shape))
        left = (ONE,) * (rank - len(result)) + result
        right = (ONE,) * (rank - len(shape)) + shape
        result = tuple(broadcast_dim(a, b) for a, b in zip(left, right))
    return result


def axis_of(axis: int, rank: int) -> int:
    """A non-negative axis.

    Raises:
        Contradiction: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise Contradiction(f"axis {axis} of a tensor of rank {rank}")
    return axis + rank if axis < 0 else axis


def require_equal(a: Dim | None, b: Dim | None, what: str) -> None:
    """Refuse two dims that are different numbers.

    Raises:
        Contradiction: they are.
    """
    if a is not None and b is not None and a.is_static and b.is_static and a != b:
        raise Contradiction(f"{what}: {a} against {b}")


def like_first(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    """Every result has the shape of the first operand (statistics of training modes are left open)."""
    shape = facts.shape(op.operand_at(0))
    axis = op.attribute("axis")
    if shape is not None and isinstance(axis, int) and op.op_type not in _AXIS_MAY_BE_IDLE:
        axis_of(axis, len(shape))
    return [shape if index == 0 or op.op_type == "Dropout" else None for index in range(len(op.results))]


def _elementwise(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    shapes = [facts.shape(value) for value in op.operands]
    return [broadcast(shapes)]


def _matmul(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    a, b = facts.shape(op.operands[0]), facts.shape(op.operands[_second_matrix(op)])
    if a is None or b is None:
        return [None]
    if not a or not b:
        raise Contradiction("a factor has rank 0")
    require_equal(a[-1], b[max(len(b) - 2, 0)], "inner dims of a matrix product differ")
    batch = broadcast([a[:-2], b[:-2]])
    assert batch is not None
    return [batch + (a[-2:-1] if len(a) > 1 else ()) + (b[-1:] if len(b) > 1 else ())]


def _second_matrix(op: OnnxOp) -> int:
    return 3 if op.op_type == "QLinearMatMul" else 1


def _gemm(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    a, b = facts.shape(op.operands[0]), facts.shape(op.operands[1])
    if a is None or b is None:
        return [None]
    if len(a) != 2 or len(b) != 2:
        raise Contradiction(f"Gemm needs matrices, not ranks {len(a)} and {len(b)}")
    m, k = reversed(a) if op.int_attribute("transA") else a
    k2, n = reversed(b) if op.int_attribute("transB") else b
    require_equal(k, k2, "inner dims of a matrix product differ")
    return [(m, n)]


def reduction_axes(op: OnnxOp, facts: Facts, rank: int) -> list[int] | None:
    """The axes a Reduce* operator reduces, from its attribute or input; None if they are computed.

    Raises:
        Contradiction: an axis is out of range.
    """
    axes = op.ints_attribute("axes")
    given = op.operand_at(1)
    if axes is None and given is not None:
        known = [] if facts.shape(given) == (Dim.of(0),) else facts.ints(given)
        if known is None:
            return None
        axes = tuple(known)
    if not axes:
        return [] if op.attribute("noop_with_empty_axes") == 1 else list(range(rank))
    return sorted({axis_of(axis, rank) for axis in axes})


def rank_after(facts: Facts, op: OnnxOp, rank: int, sign: int) -> int | None:
    """The rank when each axis in input 1 adds (1) or removes (-1) a dim; None if their number is unknown."""
    axes = facts.shape(op.operand_at(1))
    if axes is None or len(axes) != 1 or axes[0] is None or not axes[0].is_static:
        return None
    after = rank + sign * axes[0].value
    return after if after >= 0 else None


def _reduce(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    shape = facts.shape(op.operands[0])
    if shape is None:
        return [None]
    axes = reduction_axes(op, facts, len(shape))
    keep = op.int_attribute("keepdims", 1) == 1
    if axes is None:
        count = len(shape) if keep else rank_after(facts, op, len(shape), -1)
        return [None if count is None else (None,) * count]
    return [_without(shape, axes, keep)]


def _without(shape: Shape, axes: Sequence[int], keep: bool) -> Shape:
    if keep:
        return tuple(ONE if i in axes else dim for i, dim in enumerate(shape))
    return tuple(dim for i, dim in enumerate(shape) if i not in axes)


def _arg_reduce(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    shape = facts.shape(op.operands[0])
    if shape is None:
        return [None]
    axis = axis_of(op.int_attribute("axis", 0), len(shape))
    return [_without(shape, [axis], op.int_attribute("keepdims", 1) == 1)]


def _layer_norm(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    shape = facts.shape(op.operands[0])
    if shape is None:
        return [None] * len(op.results)
    axis = axis_of(op.int_attribute("axis", -1), len(shape))
    statistics = _without(shape, range(axis, len(shape)), keep=True)
    return [shape, statistics, statistics][: len(op.results)]


def _dynamic_quantize(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    return [facts.shape(op.operands[0]), (), ()]


def _recurrent(op: OnnxOp, facts: Facts) -> Sequence[Shape | None] | None:
    x, r = facts.shape(op.operands[0]), facts.shape(op.operands[2])
    if x is None or len(x) != 3:
        return None
    hidden = op.attribute("hidden_size")
    size = Dim.of(hidden) if isinstance(hidden, int) else (r[-1] if r is not None else None)
    directions = Dim.of(2 if op.str_attribute("direction", "forward") == "bidirectional" else 1)
    if op.attribute("layout") == 1:
        batch, steps = x[0], x[1]
        y, state = (batch, steps, directions, size), (batch, directions, size)
    else:
        steps, batch = x[0], x[1]
        y, state = (steps, directions, batch, size), (directions, batch, size)
    return [y, state, state][: len(op.results)]


def _top_k(op: OnnxOp, facts: Facts) -> Sequence[Shape | None]:
    shape, k = facts.shape(op.operands[0]), facts.dims(op.operand_at(1))
    if shape is None:
        return [None, None]
    axis = axis_of(op.int_attribute("axis", -1), len(shape))
    count = k[0] if k else Dim.of(op.int_attribute("k")) if "k" in op.attributes else None
    result = (*shape[:axis], count, *shape[axis + 1 :])
    return [result, result]


def _einsum(op: OnnxOp, facts: Facts) -> Sequence[Shape | None] | None:
    equation = op.str_attribute("equation").replace(" ", "")
    if "..." in equation or "->" not in equation:
        return None
    terms, result = equation.split("->")
    sizes: dict[str, Dim | None] = {}
    for term, value in zip(terms.split(","), op.operands):
        shape = facts.shape(value)
        if shape is None:
            return None
        if len(shape) != len(term):
            raise Contradiction(f"term {term} of {equation} against rank {len(shape)}")
        for letter, dim in zip(term, shape):
            sizes[letter] = broadcast_dim(sizes.get(letter, ONE), dim)
    return [tuple(sizes.get(letter) for letter in result)]


RULES: dict[str, Rule] = {
    **dict.fromkeys(_LIKE_FIRST, like_first),
    **dict.fromkeys(_BROADCAST, _elementwise),
    **dict.fromkeys(_REDUCE, _reduce),
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), _matmul),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg_reduce),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    "DynamicQuantizeLinear": _dynamic_quantize,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "TopK": _top_k,
}

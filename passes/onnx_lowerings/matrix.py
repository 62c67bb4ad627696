"""Matrix products: MatMul, Gemm, and Einsum of two operands where it is one matrix product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.ir import SSAValue

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dims import Dim, product
from neuc.dialects.onnx import OnnxOp
from neuc.passes.onnx_lowerings.builder import Builder, Rule, Unsupported

Results = Sequence[SSAValue | None]


def lower_matmul(node: OnnxOp, build: Builder) -> Results:
    """MatMul; an operand of rank 1 is a row or column whose axis goes away again."""
    a, b = build.operand(0), build.operand(1)
    build.require_float(a, b)
    left, right = build.dims(a), build.dims(b)
    row, column = len(left) == 1, len(right) == 1
    if row:
        a = build.reshape(a, (1, *left))
    if column:
        b = build.reshape(b, (*right, 1))
    y = build.matmul(a, b)
    dims = list(build.dims(y))
    if column:
        del dims[-1]
    if row:
        del dims[-1 if column else -2]
    return [build.reshape(y, dims)]


def lower_gemm(node: OnnxOp, build: Builder) -> Results:
    """Gemm; `beta` is multiplied into the bias."""
    bias = node.operand_at(2)
    beta = node.float_attribute("beta", 1.0)
    build.require_float(*node.operands)
    if bias is not None and beta == 0.0:
        bias = None
    if bias is not None and beta != 1.0:
        array = build.array(bias)
        if array is not None:
            bias = build.constant((array * np.float32(beta)).astype(np.float32), "bias")
        else:
            bias = build.map([bias], lambda x: x * beta)
    y = build.matmul(
        build.operand(0),
        build.operand(1),
        bias,
        transpose_a=bool(node.int_attribute("transA", 0)),
        transpose_b=bool(node.int_attribute("transB", 0)),
        alpha=node.float_attribute("alpha", 1.0),
    )
    return [y]


def lower_einsum(node: OnnxOp, build: Builder) -> Results:
    """Einsum of two operands without repeated or summed-out single letters: transpose, multiply, transpose back."""
    equation = node.str_attribute("equation").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    left, comma, right = terms.partition(",")
    single = all(len(set(t)) == len(t) for t in (left, right, result))
    if not arrow or not comma or "," in right or not single or "." in equation:
        raise Unsupported(f"equation {equation}")
    batch = [c for c in result if c in left and c in right]
    rows = [c for c in result if c in left and c not in right]
    columns = [c for c in result if c in right and c not in left]
    summed = [c for c in left if c in right and c not in result]
    if len(batch) + len(rows) + len(summed) != len(left) or len(batch) + len(columns) + len(summed) != len(right):
        raise Unsupported(f"equation {equation}")
    a, b = build.operand(0), build.operand(1)
    build.require_float(a, b)
    size: dict[str, Dim] = {}
    for letter, dim in [*zip(left, build.dims(a)), *zip(right, build.dims(b))]:
        if letter in size and shapes.differ(size[letter], dim):
            raise Unsupported(f"{letter} is {size[letter]} and {dim}")
        size[letter] = dim if letter not in size or dim.is_static else size[letter]

    def fold(value: SSAValue, letters: str, order: Sequence[Sequence[str]]) -> SSAValue:
        """`value` with its axes in `order`; each group after the batch is one axis."""
        moved = build.transpose(value, [letters.index(c) for group in order for c in group])
        return build.reshape(moved, [*(size[c] for c in order[0]), *(product(size[c] for c in g) for g in order[1:])])

    y = build.matmul(fold(a, left, (batch, rows, summed)), fold(b, right, (batch, summed, columns)))
    letters = [*batch, *rows, *columns]
    y = build.reshape(y, [size[c] for c in letters])
    return [build.transpose(y, [letters.index(c) for c in result])]


RULES: dict[str, Rule] = {"MatMul": lower_matmul, "Gemm": lower_gemm, "Einsum": lower_einsum}

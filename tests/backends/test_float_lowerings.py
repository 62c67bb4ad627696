"""Data movement, reductions and normalisation of `dense`, lowered and run, against the interpreter.

Movement and extremes must be exact; sums are compared within what their kernels' own tests derive.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from xdsl.dialects import func
from xdsl.dialects.builtin import f16, f32, i1, i8, i32, i64
from xdsl.ir import Operation, SSAValue

from kernel_harness import runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.lowering import unsupported_reason
from neuc.dialects import dense
from neuc.dialects.dims import Dim
from neuc.dialects.store import ConstantOp, make_constant, numpy_dtype, tensor_type
from neuc.dialects.weight_store import WeightStore
from segment_harness import expected_of, function_of, run_segment

WIDEST = runnable_isas()[0]
TWO = {isa.name: isa for isa in runnable_isas() if isa is WIDEST or isa.name == "portable"}
"""The kernels run on every instruction set in their own tests; lowerings depend on it through tiles only."""
two_isas = pytest.mark.parametrize("isa", TWO.values(), ids=TWO.keys())
EPS = float(np.finfo(np.float32).eps)
STORE = WeightStore()


def random(element, shape: Sequence[int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    dtype = numpy_dtype(element)
    assert dtype is not None
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2 if dtype.kind == "b" else 100, shape).astype(dtype)


def compare(function: func.FuncOp, arrays: Sequence[np.ndarray], isa: Isa = WIDEST, **tolerance: float) -> None:
    for got, want in zip(run_segment(function, arrays, isa, STORE), expected_of(function, arrays, STORE), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, **{"rtol": 0, "atol": 0, **tolerance})


def single(element, dims, build) -> func.FuncOp:
    return function_of([tensor_type(element, dims)], lambda args: [build(args[0])])


@two_isas
@pytest.mark.parametrize(
    ("dims", "shape", "perm"),
    [
        ((2, 30, 4, 16), (2, 30, 4, 16), (0, 2, 1, 3)),
        (("B", "S", 4, 16), (2, 30, 4, 16), (0, 2, 3, 1)),
        ((40, "N"), (40, 33), (1, 0)),
        ((5, 3, "H", "W"), (5, 3, 9, 8), (0, 2, 3, 1)),
        ((2, 3, 4), (2, 3, 4), (2, 1, 0)),
        ((7, 1, "N"), (7, 1, 5), (1, 0, 2)),
    ],
)
def test_transpose(isa: Isa, dims, shape, perm) -> None:
    result = tensor_type(f32, [dims[p] for p in perm])
    compare(single(f32, dims, lambda x: dense.TransposeOp(x, perm, result)), [random(f32, shape)], isa)


@pytest.mark.parametrize("element", [i1, i8, f16, i32, i64])
def test_transpose_of_every_element_size(element) -> None:
    result = tensor_type(element, [21, 3, 35])
    function = single(element, (3, 35, 21), lambda x: dense.TransposeOp(x, (2, 0, 1), result))
    compare(function, [random(element, (3, 35, 21))])


@two_isas
@pytest.mark.parametrize(
    ("dims", "shape", "starts", "steps", "sizes"),
    [
        ((4, "S", 8), (4, 9, 8), (1, "S - 1", 0), (1, -1, 1), (2, "S", 8)),
        (("B", 20), (3, 20), (0, 3), (1, 2), ("B", 8)),
        (("S", 16), (7, 16), ("S - 1", 0), (1, 1), (1, 16)),
        ((10,), (10,), (9,), (-3,), (4,)),
        ((2, 3), (2, 3), (0, 3), (1, 1), (2, 0)),
    ],
)
def test_slice(isa: Isa, dims, shape, starts, steps, sizes) -> None:
    result = tensor_type(f32, sizes)
    compare(single(f32, dims, lambda x: dense.SliceOp(x, starts, steps, result)), [random(f32, shape)], isa)


@two_isas
@pytest.mark.parametrize(
    ("dims", "shape", "to"),
    [
        ((3, 1), (3, 1), (3, "S")),
        ((1, 1, 1), (1, 1, 1), (2, 3, 4)),
        (("B", 1, 5), (2, 1, 5), ("B", 7, 5)),
        ((5,), (5,), ("B", 2, 5)),
        ((), (), (4, 4)),
    ],
)
def test_broadcast(isa: Isa, dims, shape, to) -> None:
    # A second input gives the symbols of the result their values.
    sizes = [{"B": 2, "S": 19}[d] if isinstance(d, str) else d for d in to]
    x, result = tensor_type(f32, dims), tensor_type(f32, to)
    function = function_of([x, result], lambda args: [dense.BroadcastOp(args[0], result)])
    compare(function, [random(f32, shape), random(f32, sizes)], isa)


@two_isas
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concat(isa: Isa, axis: int) -> None:
    shapes = [[2, 3, 5] for _ in range(3)]
    for shape, size in zip(shapes, (1, 4, 21)):
        shape[axis] = size
    result = [2, 3, 5]
    result[axis] = 26
    function = function_of(
        [tensor_type(i8, shape) for shape in shapes],
        lambda args: [dense.ConcatOp(args, axis, tensor_type(i8, result))],
    )
    compare(function, [random(i8, shape, k) for k, shape in enumerate(shapes)], isa)


def test_concat_of_a_symbolic_axis() -> None:
    types = [tensor_type(f32, ["B", "S", 4]), tensor_type(f32, ["B", 2, 4])]
    result = tensor_type(f32, ["B", "S + 2", 4])
    function = function_of(types, lambda args: [dense.ConcatOp(args, 1, result)])
    compare(function, [random(f32, (3, 5, 4)), random(f32, (3, 2, 4), 1)])


@two_isas
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_pad(isa: Isa, mode: str) -> None:
    for dims, shape, pads in [
        ((2, 3, "H", 6), (2, 3, 5, 6), (0, 0, 1, 2, 0, 0, 3, 0)),
        ((4, "C", 3), (4, 5, 3), (0, 2, 0, 0, 1, 0)),
        ((2, 2), (2, 2), (0, 0, 0, 0)),
    ]:
        padded = [tensor_type(f32, dims)]
        sizes = [Dim.of(d) + pads[i] + pads[i + len(dims)] for i, d in enumerate(dims)]
        result = tensor_type(f32, sizes)
        function = function_of(
            padded, lambda args, r=result, p=pads: [dense.PadOp(args[0], p, r, mode=mode, value=-1.5)]
        )
        compare(function, [random(f32, shape)], isa)


@two_isas
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("element", [i32, i64])
def test_gather(isa: Isa, axis: int, element) -> None:
    dims = [tensor_type(f32, ["V", 24]), tensor_type(element, ["B", "S"])]
    result = tensor_type(f32, ["B", "S", 24] if axis == 0 else ["V", "B", "S"])
    function = function_of(dims, lambda args: [dense.GatherOp(args[0], args[1], axis, result)])
    indices = np.random.default_rng(1).integers(-24, 24, (2, 7)).astype(numpy_dtype(element))
    compare(function, [random(f32, (30, 24)), indices], isa)


def test_dims_and_reshape() -> None:
    x = tensor_type(f32, ["B", "S", 6])

    def build(args: Sequence[SSAValue]) -> list[Operation]:
        return [dense.DimsOp(["B", "S*6", "3 - B"])]

    compare(function_of([x], build), [random(f32, (2, 5, 6))])
    flat = function_of([x], lambda args: [dense.ReshapeOp(args[0], tensor_type(f32, ["B*S", 6]))])
    compare(flat, [random(f32, (2, 5, 6))])


def test_iota() -> None:
    counted = function_of([tensor_type(f32, ["B"])], lambda args: [dense.IotaOp(tensor_type(i64, ["B"]))])
    for size in (0, 3, 2500):
        compare(counted, [random(f32, (size,))])


@two_isas
@pytest.mark.parametrize("kind", ["max", "sum", "mean"])
@pytest.mark.parametrize("axes", [(3,), (1,), (2, 3), (0, 2), (0, 1, 2, 3), ()])
def test_reduce(isa: Isa, kind: str, axes) -> None:
    # keepdims changes the type and no launch: one value of it an instruction set is enough.
    keepdims = isa is WIDEST
    dims, shape = ("B", 3, "H", 7), (2, 3, 5, 7)
    left = [1 if i in axes else d for i, d in enumerate(dims) if keepdims or i not in axes]
    function = single(f32, dims, lambda x: dense.ReduceOp(x, kind, axes, keepdims, tensor_type(f32, left)))
    x = random(f32, shape)
    # At most 210 terms, each rounded once at worst on the way to the sum.
    tolerance = 0.0 if kind == "max" else 210 * EPS * float(np.abs(x).max())
    compare(function, [x], isa, atol=tolerance)


@pytest.mark.parametrize("element", [f32, i32, i64])
@pytest.mark.parametrize("select_last", [False, True])
def test_arg_reduce(element, select_last: bool) -> None:
    for axis, keepdims in [(0, True), (1, False), (2, False)]:
        dims = ["B", 3, 11]
        left = [1 if i == axis else d for i, d in enumerate(dims) if keepdims or i != axis]
        function = single(
            element,
            dims,
            lambda x, a=axis, k=keepdims, r=left: dense.ArgReduceOp(x, "max", a, k, select_last, tensor_type(i64, r)),
        )
        compare(function, [random(element, (4, 3, 11))])


@two_isas
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("log", [False, True])
def test_softmax(isa: Isa, axis: int, log: bool) -> None:
    function = single(f32, ("B", 5, "S"), lambda x: dense.SoftmaxOp(x, axis, log))
    # Values within ±4: exp's argument rounds by 4 EPS, exp and sum and quotient by fewer than 12 more.
    compare(function, [random(f32, (3, 5, 19))], isa, rtol=16 * EPS, atol=16 * EPS if log else 0.0)


@two_isas
@pytest.mark.parametrize("constant", [False, True])
def test_layer_norm_repeats_small_parameters(isa: Isa, constant: bool) -> None:
    x, scale, bias = tensor_type(f32, ["B", 4, 24]), tensor_type(f32, [4, 1]), tensor_type(f32, [24])
    arrays = [random(f32, (3, 4, 24)), random(f32, (4, 1), 1), random(f32, (24,), 2)]

    def build(args: Sequence[SSAValue]) -> list[Operation]:
        made: list[ConstantOp] = []
        parameters = list(args[1:])
        if constant:
            made = [make_constant("p", array, STORE) for array in arrays[1:]]
            parameters = [op.result for op in made]
        return [*made, dense.LayerNormOp(args[0], parameters[0], parameters[1], axis=1, eps=1e-5)]

    # Rows of 96 values within ±5 and of deviation near 1: a dozen roundings of 5.
    compare(function_of([x, scale, bias], build), arrays, isa, atol=64 * EPS, rtol=16 * EPS)


def test_names_what_it_cannot_do() -> None:
    x = tensor_type(i8, [4, 4])
    function = single(i8, (4, 4), lambda v: dense.ReduceOp(v, "sum", [0], True, tensor_type(i8, [1, 4])))
    op = function.body.block.first_op
    assert op is not None
    assert unsupported_reason(op) == f"dense.reduce of {x.get_element_type()} has no CPU kernel"
    mean = single(i32, (4, 4), lambda v: dense.ReduceOp(v, "mean", [0], True, tensor_type(i32, [1, 4])))
    op = mean.body.block.first_op
    assert op is not None
    assert unsupported_reason(op) == "the mean of i32 has no CPU kernel"

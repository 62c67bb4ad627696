"""Element-wise maps against the interpreter, for every instruction set that runs here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects import arith, func, math
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, f16, f32, f64, i1, i8, i16, i32, i64
from xdsl.ir import Attribute, Operation, SSAValue

from kernel_harness import run_kernel, runnable_isas
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.map import MapKernel
from neuc.backends.cpu.kernels.map_body import Instr
from neuc.backends.cpu.lowering import lower_segment, unsupported_reason
from neuc.dialects import dense
from neuc.dialects.store import numpy_dtype, tensor_type
from neuc.dialects.weight_store import WeightStore
from segment_harness import expected_of, function_of, run_segment

WIDEST = runnable_isas()[0]
every_isa = pytest.mark.parametrize("isa", [pytest.param(isa, id=isa.name) for isa in runnable_isas()])
WIDEST_AND_PORTABLE = {isa.name: isa for isa in runnable_isas() if isa is WIDEST or isa.name == "portable"}
"""Enough for what is one instruction a lane: the widest vectors, and the machine without fused multiply-add."""
widest_and_portable = pytest.mark.parametrize("isa", WIDEST_AND_PORTABLE.values(), ids=WIDEST_AND_PORTABLE.keys())
STORE = WeightStore()
Scalars = Callable[[Sequence[SSAValue]], Sequence[Operation]]

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, -2.5, 1e-40, 3e38, -1e-3, 7.5], np.float32)


def map_of(inputs: Sequence[Attribute], result: Attribute, scalars: Scalars) -> func.FuncOp:
    """A function of one `dense.map` whose body `scalars` makes; the body yields its last operation's result."""

    def build(args: Sequence[SSAValue]) -> list[Operation]:
        op = dense.MapOp(args, result)
        ops = list(scalars(op.body.block.args))
        last = ops[-1].results[0] if ops else op.body.block.args[0]
        op.body.block.add_ops([*ops, dense.YieldOp(last)])
        op.verify()
        return [op]

    return function_of(inputs, build)


def both(function: func.FuncOp, arrays: Sequence[np.ndarray], isa: Isa) -> tuple[np.ndarray, np.ndarray]:
    (got,), (want,) = run_segment(function, arrays, isa, STORE), expected_of(function, arrays, STORE)
    assert got.dtype == want.dtype
    return got, want


def vector(element: Attribute) -> Attribute:
    return tensor_type(element, ["N"])


def same(function: func.FuncOp, arrays: Sequence[np.ndarray], isa: Isa) -> None:
    got, want = both(function, arrays, isa)
    np.testing.assert_array_equal(got, want)


def pairs(values: np.ndarray) -> list[np.ndarray]:
    """All pairs of values, as two arrays."""
    return [np.repeat(values, len(values)), np.tile(values, len(values))]


@widest_and_portable
@pytest.mark.parametrize(
    "op",
    [
        arith.AddfOp, arith.SubfOp, arith.MulfOp, arith.DivfOp,
        arith.MaximumfOp, arith.MinimumfOp, arith.MaxnumfOp, arith.MinnumfOp,
    ],
)  # fmt: skip
def test_float_arithmetic_is_exact(isa: Isa, op) -> None:
    same(map_of([vector(f32)] * 2, vector(f32), lambda v: [op(v[0], v[1])]), pairs(SPECIAL), isa)


def comparisons(op, predicates: Sequence[int], v: Sequence[SSAValue]) -> list[Operation]:
    """All comparisons of two values at once: bit p of the result is predicate p."""
    ops: list[Operation] = [arith.ConstantOp(IntegerAttr(0, i32))]
    for p in predicates:
        total = ops[-1].results[0]
        bit, place = op(v[0], v[1], p), arith.ConstantOp(IntegerAttr(1 << p, i32))
        zero = arith.ConstantOp(IntegerAttr(0, i32))
        chosen = arith.SelectOp(bit.result, place.result, zero.result)
        ops += [bit, place, zero, chosen, arith.OrIOp(total, chosen.result)]
    return ops


@every_isa
def test_every_comparison(isa: Isa) -> None:
    floats = map_of([vector(f32)] * 2, vector(i32), lambda v: comparisons(arith.CmpfOp, range(16), v))
    same(floats, pairs(SPECIAL), isa)
    ints = map_of([vector(i64)] * 2, vector(i32), lambda v: comparisons(arith.CmpiOp, range(6), v))
    same(ints, pairs(np.array([0, 1, -1, 1 << 40, -(1 << 63)], np.int64)), isa)


@pytest.mark.parametrize(
    ("isa", "element"), list(zip(WIDEST_AND_PORTABLE.values(), (i32, i64))), ids=WIDEST_AND_PORTABLE.keys()
)
@pytest.mark.parametrize(
    "op",
    [
        arith.AddiOp, arith.SubiOp, arith.MuliOp, arith.DivSIOp, arith.RemSIOp, arith.FloorDivSIOp, arith.MaxSIOp,
        arith.MinSIOp, arith.AndIOp, arith.OrIOp, arith.XOrIOp,
    ],
)  # fmt: skip
def test_integer_arithmetic_never_traps(isa: Isa, element, op) -> None:
    dtype = numpy_dtype(element)
    assert dtype is not None
    limits = np.iinfo(dtype)
    values = np.array([0, 1, -1, 2, -2, 7, -7, 100, limits.max, limits.min], dtype)
    if op in (arith.DivSIOp, arith.FloorDivSIOp):
        # numpy's own quotient of the smallest integer by −1 depends on its version.
        values = values[:-1]
    same(map_of([vector(element)] * 2, vector(element), lambda v: [op(v[0], v[1])]), pairs(values), isa)


@every_isa
def test_smallest_integer_by_minus_one(isa: Isa) -> None:
    values = [np.array([-(1 << 31)] * 3, np.int32), np.array([-1] * 3, np.int32)]
    function = map_of([vector(i32)] * 2, vector(i32), lambda v: [arith.DivSIOp(v[0], v[1])])
    (got,) = run_segment(function, values, isa, STORE)
    assert got.tolist() == [-(1 << 31)] * 3


STATED_BY_VECMATH: dict[type[Operation], tuple[float, np.ufunc]] = {
    math.ExpOp: (2, np.exp), math.ExpM1Op: (3, np.expm1), math.LogOp: (2, np.log), math.Log1pOp: (3, np.log1p),
    math.TanhOp: (4, np.tanh), math.SqrtOp: (0.5, np.sqrt),
}  # fmt: skip
"""Bounds in units in the last place that the f32 functions state (and are tested for on every instruction set)."""
ROUNDED_ONCE: dict[type[Operation], np.ufunc] = {
    math.Exp2Op: np.exp2, math.Log2Op: np.log2, math.Log10Op: np.log10, math.SinhOp: np.sinh, math.CoshOp: np.cosh,
    math.SinOp: np.sin, math.CosOp: np.cos, math.TanOp: np.tan, math.AsinOp: np.arcsin, math.AcosOp: np.arccos,
    math.AtanOp: np.arctan, math.AsinhOp: np.arcsinh, math.AcoshOp: np.arccosh, math.AtanhOp: np.arctanh,
}  # fmt: skip
ONE_ROUNDING_ULP = 0.5 + 1e-3
"""Computed in f64 within 1e-11 relative, which is 2e-4 steps of f32, and rounded to the nearest."""


def check_function(isa: Isa, op, exact: np.ufunc, bound: float) -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate([SPECIAL, rng.uniform(-20, 20, 3001), rng.uniform(-1, 1, 500), rng.standard_normal(500) * 1e-3])
    x = np.concatenate([x, np.exp(rng.uniform(-80, 80, 500))]).astype(np.float32)
    if op in (math.SinOp, math.CosOp, math.TanOp):
        # Beyond this the functions promise less.
        x = x[~(np.abs(x) > 1e6) | np.isinf(x)]
    (got,) = run_segment(map_of([vector(f32)], vector(f32), lambda v: [op(v[0])]), [x], isa, STORE)
    with np.errstate(all="ignore"):
        want = exact(x.astype(np.float64))
        rounded = want.astype(np.float32)
        special = ~np.isfinite(rounded) | ~np.isfinite(got)
        np.testing.assert_array_equal(got[special], rounded[special])
        step = np.spacing(np.maximum(np.abs(rounded[~special]), np.float32(2.0**-126)))
    error = np.abs(got[~special].astype(np.float64) - want[~special]) / step
    assert error.max() <= bound, (x[~special][error.argmax()], error.max())


@pytest.mark.parametrize("op", list(STATED_BY_VECMATH), ids=lambda op: op.name)
def test_common_functions(op) -> None:
    check_function(WIDEST, op, STATED_BY_VECMATH[op][1], STATED_BY_VECMATH[op][0])


@widest_and_portable
@pytest.mark.parametrize("op", list(ROUNDED_ONCE), ids=lambda op: op.name)
def test_rarer_functions_are_rounded_once(isa: Isa, op) -> None:
    check_function(isa, op, ROUNDED_ONCE[op], ONE_ROUNDING_ULP)


@every_isa
@pytest.mark.parametrize("op", [math.FloorOp, math.CeilOp, math.RoundEvenOp, math.TruncOp, math.AbsFOp, arith.NegfOp])
def test_rounding_is_exact(isa: Isa, op) -> None:
    rng = np.random.default_rng(2)
    x = np.concatenate([SPECIAL, np.arange(-5, 5, 0.25), rng.uniform(-1e8, 1e8, 200), [8388607.5, -0.3]])
    same(map_of([vector(f32)], vector(f32), lambda v: [op(v[0])]), [x.astype(np.float32)], isa)


@every_isa
def test_powers(isa: Isa) -> None:
    rng = np.random.default_rng(3)
    special = np.array([0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, np.inf, -np.inf, np.nan, 1e30, 16777217], np.float32)
    x, y = pairs(special)
    x = np.concatenate([x, rng.uniform(0, 50, 1000)]).astype(np.float32)
    y = np.concatenate([y, rng.uniform(-20, 20, 1000)]).astype(np.float32)
    function = map_of([vector(f32)] * 2, vector(f32), lambda v: [math.PowFOp(v[0], v[1])])
    (got,) = run_segment(function, [x, y], isa, STORE)
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.float64), y.astype(np.float64)).astype(np.float32)
    # Computed in f64 with errors below 1e-9 and rounded once, as the reference is: at most one step apart.
    np.testing.assert_array_max_ulp(got, want, maxulp=1)


@widest_and_portable
def test_casts(isa: Isa) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    widen = map_of([vector(f16)], vector(f32), lambda v: [arith.ExtFOp(v[0], f32)])
    same(widen, [halves], isa)
    rng = np.random.default_rng(4)
    exact = halves.astype(np.float32)
    exact = exact[np.isfinite(exact)]
    ties, near = (exact[:-1] + exact[1:]) / 2, np.nextafter(exact, np.float32(0))
    floats = np.concatenate([SPECIAL, near, ties, rng.standard_normal(999) * 1e-5, [65519, 65520]])
    floats = floats.astype(np.float32)
    narrow = map_of([vector(f32)], vector(f16), lambda v: [arith.TruncFOp(v[0], f16)])
    same(narrow, [floats], isa)
    small = np.array([-128, 127, 0, -1, 5], np.int8)
    same(map_of([vector(i8)], vector(f32), lambda v: [arith.SIToFPOp(v[0], f32)]), [small], isa)
    same(map_of([vector(i8)], vector(i64), lambda v: [arith.ExtSIOp(v[0], i64)]), [small], isa)
    same(map_of([vector(i8)], vector(i32), lambda v: [arith.ExtUIOp(v[0], i32)]), [small.clip(0)], isa)
    same(map_of([vector(i64)], vector(i16), lambda v: [arith.TruncIOp(v[0], i16)]), [np.array([70000, -3])], isa)
    same(map_of([vector(i64)], vector(f64), lambda v: [arith.SIToFPOp(v[0], f64)]), [np.array([1 << 53, -7])], isa)
    same(map_of([vector(f32)], vector(f64), lambda v: [arith.ExtFOp(v[0], f64)]), [SPECIAL], isa)
    same(map_of([vector(f64)], vector(f32), lambda v: [arith.TruncFOp(v[0], f32)]), [np.array([1e300, 0.1])], isa)
    flags = np.array([True, False, True])
    same(map_of([vector(i1)], vector(f32), lambda v: [arith.UIToFPOp(v[0], f32)]), [flags], isa)
    inside = np.array([0.0, -0.9, 2.5, -7.99, 1e6], np.float32)
    for element in (i32, i64):
        same(map_of([vector(f32)], vector(element), lambda v, e=element: [arith.FPToSIOp(v[0], e)]), [inside], isa)


@every_isa
def test_floats_too_large_for_their_integer_saturate(isa: Isa) -> None:
    function = map_of([vector(f32)], vector(i32), lambda v: [arith.FPToSIOp(v[0], i32)])
    (got,) = run_segment(function, [np.array([1e20, -1e20, np.nan, np.inf], np.float32)], isa, STORE)
    assert got.tolist() == [2**31 - 1, -(2**31), 0, 2**31 - 1]


def where_positive(v: Sequence[SSAValue]) -> list[Operation]:
    zero = arith.ConstantOp(FloatAttr(0.0, f32))
    positive = arith.CmpfOp(v[0], zero.result, "ogt")
    product = arith.MulfOp(v[1], v[2])
    return [zero, positive, product, arith.SelectOp(positive.result, product.result, v[0])]


SIZES = st.sampled_from([1, 2, 3, 5, 16, 37])


@given(data=st.data())
@settings(max_examples=35, deadline=None)
def test_broadcasts_as_numpy(data: st.DataObject) -> None:
    isa = data.draw(st.sampled_from(runnable_isas()))
    rank = data.draw(st.integers(0, 4))
    full = [data.draw(SIZES) for _ in range(rank)]
    symbols = {}
    names: list[int | str] = list(full)
    for axis in range(rank):
        if data.draw(st.booleans()):
            names[axis] = f"D{axis}"
            symbols[f"D{axis}"] = full[axis]
    types, arrays = [], []
    for k in range(3):
        own = data.draw(st.integers(0, rank)) if k else rank
        dims = [1 if k and data.draw(st.booleans()) else d for d in names[rank - own :]]
        types.append(tensor_type(f32, dims))
        shape = [symbols[d] if isinstance(d, str) else d for d in dims]
        arrays.append(np.random.default_rng(k).standard_normal(shape).astype(np.float32))
    function = map_of(types, tensor_type(f32, names), where_positive)
    got = run_segment(function, arrays, isa, STORE, threads_split=data.draw(st.integers(1, 4)))
    np.testing.assert_array_equal(got[0], expected_of(function, arrays, STORE)[0])


@every_isa
@pytest.mark.parametrize("size", [1, 9])
def test_a_symbol_may_turn_out_to_be_one(isa: Isa, size: int) -> None:
    types = [tensor_type(f32, ["B", "S"]), tensor_type(f32, ["B", "M"]), tensor_type(f32, ["M"])]
    function = map_of(types, tensor_type(f32, ["B", "S"]), where_positive)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((4, 9), (4, size), (size,))]
    same(function, arrays, isa)


@every_isa
def test_nothing_to_do(isa: Isa) -> None:
    types = [tensor_type(f32, ["B", "S"]), tensor_type(f32, ["S"]), tensor_type(f32, ["B", 1])]
    function = map_of(types, types[0], where_positive)
    for shape in [(0, 5), (5, 0)]:
        arrays = [np.zeros(s, np.float32) for s in (shape, shape[1:], (shape[0], 1))]
        same(function, arrays, isa)


@every_isa
def test_booleans_are_bytes(isa: Isa) -> None:
    values = np.random.default_rng(0).integers(0, 2, (2, 77)).astype(bool)
    function = map_of([vector(i1)] * 2, vector(i1), lambda v: [arith.AndIOp(v[0], v[1])])
    same(function, list(values), isa)
    # Any byte but 0 is true, and what is stored is 0 or 1.
    kernel = MapKernel(("i1",), "i1", (), 0, 1, ("unit",))
    out = np.zeros(5, np.uint8)
    run_kernel(kernel, isa, [np.array([0, 1, 2, 255, 0], np.uint8), out, 5, 1], 5)
    assert out.tolist() == [0, 1, 1, 1, 0]


def test_equal_maps_share_a_kernel_and_others_do_not() -> None:
    def name(result: Attribute, constant: float) -> str:
        def body(v: Sequence[SSAValue]) -> list[Operation]:
            number = arith.ConstantOp(FloatAttr(constant, f32))
            return [number, arith.MulfOp(v[0], number.result)]

        kernels = {}
        lower_segment(map_of([result], result, body), WIDEST, STORE, kernels)
        (found,) = kernels
        return found

    assert name(tensor_type(f32, ["B", 7]), 2.0) == name(tensor_type(f32, [3]), 2.0)
    assert name(tensor_type(f32, [3]), 2.0) != name(tensor_type(f32, [3]), 2.5)
    assert name(tensor_type(f32, [3]), 2.0).startswith("map_mulf_")


def test_names_what_it_cannot_do() -> None:
    wide = map_of([vector(f64)], vector(f64), lambda v: [math.ExpOp(v[0])])
    root = map_of([vector(f32)], vector(f32), lambda v: [math.CbrtOp(v[0])])
    half = map_of([vector(f16)] * 2, vector(f16), lambda v: [arith.AddfOp(v[0], v[1])])
    reasons = [unsupported_reason(f.body.block.first_op) for f in (wide, root, half) if f.body.block.first_op]
    assert reasons == [
        "math.exp has a CPU kernel for f32 only",
        "math.cbrt has no CPU kernel",
        "arith.addf on f16 has no CPU kernel",
    ]


def test_constants_keep_their_bits() -> None:
    function = map_of([vector(i64)], vector(i64), lambda v: [arith.ConstantOp(IntegerAttr(-(1 << 63), i64))])
    same(function, [np.zeros(3, np.int64)], WIDEST)
    kernel = MapKernel(("f32",), "f32", (Instr("arith.constant", (), "f32", (0.1).hex()),), 1, 1, ("unit",))
    out = np.zeros(3, np.float32)
    run_kernel(kernel, WIDEST, [out, out, 3, 1], 3)
    assert out.tolist() == [np.float32(0.1)] * 3

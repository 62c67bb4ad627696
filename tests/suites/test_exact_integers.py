"""`cpu-tl2`'s integers are numpy's: through lowering, memory plan, object code and the threaded runtime.

One program serves all batches and thread counts. Instruction sets are narrowed as a user would, by the environment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp, StringAttr, f32
from xdsl.ir import Operation, SSAValue

from neuc.backends.cpu.emit import emit
from neuc.backends.cpu.lower_to_cpu import LowerToCpu
from neuc.backends.cpu.plan_memory import PlanMemory
from neuc.dialects import lut, ternary
from neuc.dialects.context import NeucContext
from neuc.dialects.dims import Dim
from neuc.dialects.interp.core import interpret
from neuc.dialects.onnx_base import NAME
from neuc.dialects.store import tensor_type
from neuc.dialects.ternary_types import EncodingAttr, ScaleAttr
from neuc.dialects.ternary_weights import make_weight
from neuc.passes.partition import Partition
from neuc.runtime.cpu_features import host_features
from neuc.runtime.session import Session
from segment_harness import function_of

NARROWED = {
    "host": "",
    "avx512 without vnni": "-avx512vnni",
    "avx512 without vbmi": "-avx512vbmi",
    "avx2": "-avx512f,-avxvnni",
    "avx2 with vnni": "-avx512f",
    "sse4": "-avx2",
    "portable": "-ssse3",
}
BATCHES = (1, 2, 3, 17, 128)
THREADS = (1, 2, 3, 4)
SHAPES = ((1, 1), (17, 37), (65, 301))


@dataclass
class Case:
    module: ModuleOp
    context: NeucContext
    trits: np.ndarray


def build(n: int, k: int, planes: int, g: int, bm: int, bk: int) -> Case:
    """A function from x[B, k] to the codes of x and the sums of every row of every plane."""
    context = NeucContext()
    trits = np.random.default_rng(n * k).integers(-1, 2, (planes, n, k)).astype(np.int8)
    trits[:, : n // 3] = 0

    def ops(args: list[SSAValue]) -> list[Operation]:
        scales = np.ones((planes, n, 1), np.float32)
        weight = make_weight("w", trits, scales, context.weights, scale=ScaleAttr.of("row"))
        quantized = ternary.QuantizeOp(args[0])
        packed = ternary.PackOp(weight.result, EncodingAttr.of("tl2", g), bm, bk)
        table = lut.BuildOp(quantized.results[0], g)
        sums = lut.AccumulateOp(table.results[0], packed.result, [Dim.symbol("B")], bm, bk)
        return [weight, quantized, packed, table, sums]

    main = function_of([tensor_type(f32, ["B", k])], ops)  # pyright: ignore[reportArgumentType]
    main.arg_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr("x")})])
    main.res_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr("sums")})])
    return Case(ModuleOp([main]), context, trits)


def activations(batch: int, k: int) -> np.ndarray:
    """Random rows among which some are zero and some have every code at an end of the range."""
    rng = np.random.default_rng(batch)
    x = rng.standard_normal((batch, k)).astype(np.float32)
    x[::5] = 0
    x[1::5] = np.float32(3.5)
    x[2::5] = np.float32(-1e30)
    x[3::5] = np.where(rng.random(k) < 0.5, np.float32(1e-30), np.float32(-1e-30))
    return x


def expected(case: Case, x: np.ndarray) -> np.ndarray:
    """numpy's int32 product of the codes with all rows, [B, 1, planes·n]."""
    from neuc.dialects.interp.ternary import quantize

    q, _ = quantize(x, 1)
    rows = case.trits.reshape(-1, case.trits.shape[2])
    return (q.astype(np.int32) @ rows.T.astype(np.int32))[:, None, :]


@pytest.fixture(params=list(NARROWED))
def narrowed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name = str(request.param)
    if name.startswith("avx512") and "avx512f" not in host_features():
        pytest.skip("this CPU has no AVX-512")
    monkeypatch.setenv("NEUC_CPU_FEATURES", NARROWED[name])
    return name


@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_sums_equal_numpys(narrowed: str, n: int, k: int) -> None:
    case = build(n, k, planes=2, g=3, bm=32, bk=24)
    x = activations(17, k)
    np.testing.assert_array_equal(interpret(case.module, [x], case.context.weights)[0], expected(case, x))
    for step in (Partition(target="cpu-tl2"), LowerToCpu(), PlanMemory()):
        step.apply(case.context, case.module)
    made = emit(case.module, case.context.weights)
    assert made.isa.name == narrowed.split()[0] or narrowed == "host"
    for threads in THREADS:
        with Session.from_parts(made.program, made.kernels, made.arrays(), threads=threads) as session:
            for batch in BATCHES:
                x = activations(batch, k)
                (got,) = session.run(None, {"x": x})
                assert got.dtype == np.int32
                np.testing.assert_array_equal(got, expected(case, x), err_msg=f"batch {batch}, {threads} threads")


@pytest.mark.parametrize(("g", "bm", "bk"), [(1, 16, 4), (2, 48, 16), (3, 16, 12), (3, 64, 300)])
def test_every_tiling_is_exact(g: int, bm: int, bk: int) -> None:
    case = build(33, 130, planes=3, g=g, bm=bm, bk=bk)
    for step in (Partition(target="cpu-tl2"), LowerToCpu(), PlanMemory()):
        step.apply(case.context, case.module)
    made = emit(case.module, case.context.weights)
    with Session.from_parts(made.program, made.kernels, made.arrays(), threads=2) as session:
        for batch in (1, 3):
            x = activations(batch, 130)
            np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected(case, x))

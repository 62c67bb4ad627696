"""Every encoding on every instruction set of this CPU gives numpy's integers: linear and convolution, any size.

Hypothesis draws from the grid in the quick suite; the slow suite goes through it. AArch64 is in
`tests/backends/test_aarch64_kernels.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from xdsl.dialects import func
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp, StringAttr, f32, i8
from xdsl.ir import Operation, SSAValue

from kernel_harness import runnable_isas
from neuc.backends.cpu.emit import emit
from neuc.backends.cpu.encodings import CPU_ENCODINGS
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.lower_to_cpu import LowerToCpu
from neuc.backends.cpu.plan_memory import PlanMemory
from neuc.backends.cpu.target import isa_text
from neuc.dialects import lut, ternary
from neuc.dialects.context import NeucContext
from neuc.dialects.dims import Dim
from neuc.dialects.onnx_base import NAME
from neuc.dialects.store import tensor_type
from neuc.dialects.ternary_encodings import ENCODINGS
from neuc.dialects.ternary_types import EncodingAttr, ScaleAttr, TritsType, Window
from neuc.dialects.ternary_weights import make_weight
from neuc.passes.analysis.tile_cost import choose_tile, largest_group
from neuc.passes.partition import Partition
from neuc.passes.tile_lut import TileLut
from neuc.runtime.session import Session
from segment_harness import function_of

ISAS = {isa_text(isa): isa for isa in runnable_isas()}
LEVEL_SETS = (
    (-1, 0, 1),
    (-1, 1),
    (0, 1),
    (-3, -1, 1, 3),
    (-1, 0, 1, 2),
    (-2, -1, 0, 1),
    tuple(range(-8, 8)),
    (-5, 0, 9),
)
BATCHES = (1, 2, 3, 17, 128)
THREADS = (1, 2, 3, 4)
F32_EXACT = 1 << 24
"""Integers f32 holds exactly: convolutions return their sums as f32, with all scales one."""


@dataclass(frozen=True)
class Cell:
    """One way to multiply: an encoding with its g and levels."""

    kind: str
    g: int
    levels: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.kind}-g{self.g}-{len(self.levels)}levels"


def cells() -> list[Cell]:
    """Every encoding with every g and every level set it holds."""
    found = itertools.product(ENCODINGS.values(), (1, 2, 3, 4), LEVEL_SETS)
    return [
        Cell(rule.name, g, levels)
        for rule, g, levels in found
        if rule.name in CPU_ENCODINGS and g in rule.groups and rule.reason_against(levels, g) is None
    ]


CELLS = cells()


def test_every_encoding_of_the_dialect_has_kernels() -> None:
    assert set(CPU_ENCODINGS) == set(ENCODINGS)


def codes(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Int8 activations over the whole range; some rows are zero or at an end of it."""
    rng = np.random.default_rng(seed)
    q = rng.integers(-128, 128, shape).astype(np.int8)
    q[::5] = 0
    q[1::5] = -128
    q[2::5] = np.where(rng.random(q[2::5].shape) < 0.5, 127, -128)
    return q


def weights(cell: Cell, planes: int, n: int, k: int) -> np.ndarray:
    rng = np.random.default_rng(n * 1000 + k)
    trits = rng.choice(np.array(cell.levels, np.int8), (planes, n, k))
    trits[:, : n // 4] = cell.levels[-1]
    return trits


def session(function: func.FuncOp, context: NeucContext, isa: Isa, threads: int) -> Session:
    module = ModuleOp([function])
    module.verify()
    for step in (Partition(target="cpu"), LowerToCpu(isa=isa_text(isa)), PlanMemory()):
        step.apply(context, module)
    made = emit(module, context.weights)
    return Session.from_parts(made.program, made.kernels, made.arrays(), threads=threads)


def linear_program(
    cell: Cell, isa: Isa, trits: np.ndarray, scale: ScaleAttr, bm: int, bk: int, threads: int
) -> Session:
    """From q[B, K] to the sums [B, G, planes·n]."""
    context = NeucContext()
    planes, n, k = trits.shape
    encoding = EncodingAttr.of(cell.kind, cell.g)

    def ops(args: Sequence[SSAValue]) -> Sequence[Operation]:
        scales = np.ones((planes, n, scale.groups(k)), np.float32)
        weight = make_weight("w", trits, scales, context.weights, scale=scale, levels=cell.levels)
        tile = choose_tile(TritsType.of(n, k, scale, planes, cell.levels), encoding)
        pack = ternary.PackOp(weight.result, encoding, bm or tile.bm, bk or tile.bk)
        if not encoding.rule.lookup:
            return [weight, pack, ternary.AccumulateOp(args[0], pack.result)]
        build = lut.BuildOp(args[0], cell.g, encoding.rule.table_levels(cell.levels))
        bm_, bk_ = pack.BM.value.data, pack.BK.value.data
        return [weight, pack, build, lut.AccumulateOp(build.table, pack.result, [Dim.symbol("B")], bm_, bk_)]

    main = function_of([tensor_type(i8, ["B", k])], ops)
    main.arg_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr("q")})])
    main.res_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr("sums")})])
    return session(main, context, isa, threads)


def numpy_sums(q: np.ndarray, trits: np.ndarray, scale: ScaleAttr) -> np.ndarray:
    """Int32 [B, G, planes·n]."""
    rows, width = trits.reshape(-1, trits.shape[2]).astype(np.int32), scale.group_size(trits.shape[2])
    parts = [slice(at, at + width) for at in range(0, trits.shape[2], width)]
    return np.stack([q[:, part].astype(np.int32) @ rows[:, part].T for part in parts], axis=1)


def conv_program(
    cell: Cell, isa: Isa, trits: np.ndarray, window: Window, channels: int, group: int, threads: int
) -> Session:
    """From q[B, C, H, W] to the convolution as f32, all scales one."""
    context = NeucContext()
    planes, n, _ = trits.shape

    def ops(args: Sequence[SSAValue]) -> Sequence[Operation]:
        scales = np.ones((planes, n, 1), np.float32)
        row = ScaleAttr.of("row")
        weight = make_weight("w", trits, scales, context.weights, scale=row, levels=cell.levels)
        return [weight, ternary.ConvOp(args[0], args[1], weight.result, window, group=group)]

    main = function_of([tensor_type(i8, ["B", channels, "H", "W"]), tensor_type(f32, ["B"])], ops)
    main.arg_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr(name)}) for name in ("q", "s")])
    main.res_attrs = ArrayAttr([DictionaryAttr({NAME: StringAttr("y")})])
    module = ModuleOp([main])
    TileLut(cell.kind, cell.g if ENCODINGS[cell.kind].lookup else 0).apply(context, module)
    main.detach()
    return session(main, context, isa, threads)


def numpy_conv(q: np.ndarray, trits: np.ndarray, window: Window, group: int) -> np.ndarray:
    """Int64 [B, n, …], the planes added up."""
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.strides, window.dilations
    top, left, bottom, right = window.pads
    padded = np.pad(q, ((0, 0), (0, 0), (top, bottom), (left, right))).astype(np.int64)
    n, per_group = trits.shape[1], q.shape[1] // group
    w = trits.sum(axis=0, dtype=np.int64).reshape(n, per_group, kh, kw)
    height = (padded.shape[2] - dh * (kh - 1) - 1) // sh + 1
    width = (padded.shape[3] - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((q.shape[0], n, height, width), np.int64)
    for g, i, j in itertools.product(range(group), range(kh), range(kw)):
        outs, ins = slice(g * n // group, (g + 1) * n // group), slice(g * per_group, (g + 1) * per_group)
        here = padded[:, ins, i * dh : i * dh + sh * height : sh, j * dw : j * dw + sw * width : sw]
        y[:, outs] += np.einsum("bchw,oc->bohw", here[:, :, :height, :width], w[outs, :, i, j])
    return y


def check_linear(
    cell: Cell,
    isa: Isa,
    n: int,
    k: int,
    planes: int,
    size: int,
    threads: int,
    batches: Sequence[int],
    bm: int = 0,
    bk: int = 0,
) -> None:
    scale = ScaleAttr.of("group", size) if size else ScaleAttr.of("row")
    trits = weights(cell, planes, n, k)
    with linear_program(cell, isa, trits, scale, bm, bk, threads) as program:
        for batch in batches:
            q = codes((batch, k), batch)
            (got,) = program.run(None, {"q": q})
            assert got.dtype == np.int32
            np.testing.assert_array_equal(got, numpy_sums(q, trits, scale), err_msg=f"batch {batch}")


def check_conv(
    cell: Cell,
    isa: Isa,
    channels: int,
    n: int,
    window: Window,
    group: int,
    planes: int,
    threads: int,
    sizes: Sequence[tuple[int, int, int]],
) -> None:
    k = channels // group * window.kernel[0] * window.kernel[1]
    assert k * 128 * planes * max(map(abs, cell.levels)) < F32_EXACT
    trits = weights(cell, planes, n, k)
    with conv_program(cell, isa, trits, window, channels, group, threads) as program:
        for batch, height, width in sizes:
            q = codes((batch, channels, height, width), batch)
            (got,) = program.run(None, {"q": q, "s": np.ones(batch, np.float32)})
            np.testing.assert_array_equal(got, numpy_conv(q, trits, window, group))


CELL = st.sampled_from(CELLS)
ISA = st.sampled_from(list(ISAS.values()))
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(st.data())
@quick
def test_linear(data: st.DataObject) -> None:
    cell, isa = data.draw(CELL), data.draw(ISA)
    n, k, planes = data.draw(st.integers(1, 140)), data.draw(st.integers(1, 400)), data.draw(st.integers(1, 2))
    size = data.draw(st.sampled_from([0, 0, 32, 64, 128]))
    scale = ScaleAttr.of("group", size) if size else ScaleAttr.of("row")
    if size and largest_group(TritsType.of(n, k, scale, planes, cell.levels), cell.kind) != cell.g:
        size = 0
    bm = 16 * data.draw(st.integers(0, 8))
    note(f"{cell} on {isa_text(isa)}")
    batches = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    check_linear(cell, isa, n, k, planes, size, data.draw(st.sampled_from(THREADS)), batches, bm)


@given(st.data())
@quick
def test_conv(data: st.DataObject) -> None:
    cell, isa = data.draw(CELL), data.draw(ISA)
    group = data.draw(st.sampled_from([1, 1, 2, 3]))
    channels, n = group * data.draw(st.integers(1, 20)), group * data.draw(st.integers(1, 40))
    kernel, strides, dilations = (
        data.draw(st.tuples(st.integers(1, most), st.integers(1, most))) for most in (3, 2, 2)
    )
    pads = data.draw(st.tuples(*[st.integers(0, 2)] * 4))
    sizes = [(batch, data.draw(st.integers(5, 12)), data.draw(st.integers(5, 12))) for batch in (1, 2)]
    note(f"{cell} on {isa_text(isa)}")
    window = Window(kernel, strides, pads, dilations)
    check_conv(
        cell, isa, channels, n, window, group, data.draw(st.integers(1, 2)), data.draw(st.sampled_from(THREADS)), sizes
    )


@pytest.mark.slow
@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS.keys())
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_whole_grid(cell: Cell, isa: Isa) -> None:
    for threads, (n, k) in zip(THREADS, ((1, 1), (17, 37), (65, 301), (130, 1029)), strict=True):
        check_linear(cell, isa, n, k, 2, 0, threads, BATCHES)
    for size in (32, 64, 128):
        scale = ScaleAttr.of("group", size)
        if largest_group(TritsType.of(33, 330, scale, 1, cell.levels), cell.kind) == cell.g:
            check_linear(cell, isa, 33, 330, 1, size, 2, BATCHES)
    for group, window in (
        (1, Window((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))),
        (2, Window((3, 2), (2, 1), (0, 2, 1, 1), (1, 2))),
    ):
        check_conv(cell, isa, 10, 38, window, group, 1, 3, [(1, 9, 17), (2, 8, 21)])

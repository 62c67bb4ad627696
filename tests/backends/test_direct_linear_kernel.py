"""Fused linear layers of direct encodings: bit for bit the interpreter's products, scales, bias and activation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aarch64 import run_on_aarch64
from kernel_harness import assert_guards, guarded, run_kernel, runnable, runnable_isas
from neuc.backends.cpu.codegen import assembly
from neuc.backends.cpu.isa import FetchOrder, Isa
from neuc.backends.cpu.kernels.direct_linear import DirectLinearKernel, linear_layout, pack_scales, panel_products
from neuc.backends.cpu.kernels.linear_epilogue import Tail, TailOperand
from neuc.backends.cpu.kernels.map_body import Instr
from neuc.backends.cpu.kernels.ternary_dequantize import Epilogue
from neuc.backends.cpu.packing.direct import DirectEncoding, DirectLayout, pack_direct
from neuc.backends.cpu.target import isa_text
from neuc.dialects.interp.ternary import accumulate, dequantize

TERNARY = (-1, 0, 1)
INT4 = tuple(range(-8, 8))
INT8 = tuple(range(-127, 128))
VNNI = ("avx512vnni", "avx512vbmi")
AMX = (*VNNI, "amx-int8")
SQUARED_RELU_TIMES = Tail(
    (
        Instr("arith.constant", (), "f32", (0.0).hex()),
        Instr("arith.maximumf", (1, 3), "f32"),
        Instr("arith.mulf", (4, 4), "f32"),
        Instr("arith.mulf", (5, 0), "f32"),
        Instr("arith.addf", (6, 2), "f32"),
    ),
    7,
    ("y", "full", "row"),
)
"""relu²(full)·y + row."""
SCALED = Tail((Instr("arith.mulf", (1, 0), "f32"),), 2, ("y", "scalar"))


def isas() -> list[Isa]:
    """Every instruction set with kernels of its own that this machine runs; one lane at a time is not fused."""
    narrower = [Isa.avx512(AMX), Isa.avx512(VNNI), Isa.avx512(VNNI[:1]), Isa.avx512(), Isa.avx2(("avxvnni",))]
    narrower += [replace(isa, fetch_order="lines") for isa in (Isa.avx512(VNNI), Isa.avx2())]
    rest = [isa for isa in runnable_isas() if isa.name not in ("avx512", "scalar")]
    return [isa for isa in narrower if runnable(isa)] + rest


each_isa = pytest.mark.parametrize("isa", isas(), ids=isa_text)

Case = tuple[DirectEncoding, int, int, int, int, int, bool, tuple[int, ...]]
# Encoding, planes, N, K, BM, columns per scale (0: one scale a row), scales that f16 holds, levels.
CASES: list[Case] = [
    ("i2", 1, 131, 301, 64, 0, False, TERNARY),
    ("t5", 1, 67, 330, 128, 0, True, TERNARY),
    ("i8", 2, 67, 77, 64, 32, True, INT8),
]
MORE_CASES: list[Case] = [
    ("i4", 1, 70, 203, 64, 32, True, INT4),
    ("i8", 1, 67, 77, 64, 32, False, INT8),
    ("i2", 3, 20, 100, 32, 64, True, (-3, -1, 1, 3)),
    ("i8", 1, 130, 256, 64, 32, True, INT8),
    ("i8", 1, 67, 301, 64, 0, False, INT8),
    ("i4", 2, 67, 203, 64, 0, False, INT4),
    ("t5", 2, 33, 96, 16, 64, False, (0, 1)),
    ("t5", 1, 96, 2560, 64, 0, False, TERNARY),
    ("i2", 1, 96, 2570, 64, 0, False, TERNARY),
    ("i4", 1, 20, 300, 48, 128, False, tuple(range(-15, 16, 2))),
]


def activations(tokens: int, columns: int, seed: int = 0) -> np.ndarray:
    """Random rows, and among them all -128, all 127, all zero."""
    q = np.random.default_rng(seed).integers(-128, 128, (tokens, columns)).astype(np.int8)
    for row, value in zip(q[1:], (-128, 127, 0), strict=False):
        row[:] = value
    return q


class Layer:
    """Weights of one case, and what the fused kernel and the interpreter make of them."""

    def __init__(self, case: Case, isa: Isa, seed: int = 0) -> None:
        encoding, planes, rows, columns, bm, group, halves, levels = case
        random = np.random.default_rng(seed)
        self.isa, self.rows, self.columns, self.planes = isa, rows, columns, planes
        self.segment = min(group, columns) or columns
        self.groups = -(-columns // self.segment)
        self.weights = random.choice(np.array(levels, np.int8), (planes, rows, columns))
        for row, level in zip(self.weights[0, 1:], (levels[0], levels[-1], 0 if 0 in levels else levels[0])):
            row[:] = level
        scales = random.standard_normal((planes, rows, self.groups))
        self.scales = scales.astype(np.float16 if halves else np.float32).astype(np.float32)
        self.bias = random.standard_normal(rows).astype(np.float32)
        layout = DirectLayout.of(encoding, isa, levels, rows, columns, self.segment, bm, columns)
        self.layout = linear_layout(layout)
        self.packed_scales = pack_scales(self.scales, self.layout)
        assert (self.packed_scales.dtype == np.float16) == halves

    def run(
        self,
        q: np.ndarray,
        s: np.ndarray,
        tail: Tail | None = None,
        operands: Sequence[np.ndarray] = (),
        *,
        activation: str = "none",
        split: int = 1,
        offset: int | None = None,
    ) -> np.ndarray:
        """Outputs; with `offset`, their memory begins so many bytes behind a cache line's beginning."""
        epilogue = Epilogue(self.rows, self.planes, self.groups, True, activation)
        panels = panel_products(self.isa) is not None and self.planes * self.groups == 1
        kernel = DirectLinearKernel(self.layout, epilogue, self.packed_scales.dtype == np.float16, tail, panels)
        y, whole = guarded(np.full((len(q), self.rows), np.nan, np.float32))
        if offset is not None:
            room, whole = guarded(np.full(y.nbytes + 64, 0x5A, np.uint8))
            first = (offset - room.ctypes.data) % 64
            y = room[first : first + y.nbytes].view(np.float32).reshape(y.shape)
        packed = np.concatenate([pack_direct(plane, self.layout) for plane in self.weights])
        shared = len(q) // len(s)
        args = [q, packed, y, len(q), s, self.packed_scales, self.bias, shared, *operands]
        scratch = kernel.scratch_bytes(self.isa)
        run_kernel(kernel, self.isa, args, kernel.units(len(q)), threads_split=split, scratch_bytes=scratch)
        assert_guards(whole)
        return y

    def expected(self, q: np.ndarray, s: np.ndarray) -> np.ndarray:
        sums = accumulate(q, self.weights.reshape(-1, self.columns), self.segment)
        return dequantize(sums, np.repeat(s, len(q) // len(s)), self.scales) + self.bias


def token_scales(tokens: int) -> np.ndarray:
    return np.random.default_rng(tokens).random(tokens).astype(np.float32)


@each_isa
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_interpreter(case: Case, isa: Isa) -> None:
    layer = Layer(case, isa)
    for tokens, split in ((1, 1), (2, 2), (3, 3), (17, 4), (25, 1), (131, 2)):
        q, s = activations(tokens, layer.columns), token_scales(tokens)
        assert np.array_equal(layer.run(q, s, split=split), layer.expected(q, s))


@pytest.mark.slow
@each_isa
@pytest.mark.parametrize("case", MORE_CASES, ids=str)
def test_more_equals_the_interpreter(case: Case, isa: Isa) -> None:
    test_equals_the_interpreter(case, isa)


with_panels = pytest.mark.parametrize(
    "isa", [isa for isa in isas() if panel_products(isa)], ids=lambda isa: "+".join(isa.optional)
)


@with_panels
@pytest.mark.parametrize(("encoding", "columns"), [("i2", 1300), ("t5", 1300), ("i2", 60), ("t5", 20)])
def test_panels_follow_one_another(encoding: DirectEncoding, columns: int, isa: Isa) -> None:
    # Four chunks of rows, the last one not full; blocks of columns of several lengths; ranges that begin anywhere.
    layer = Layer((encoding, 1, 200, columns, 64, 0, True, TERNARY), isa)
    for tokens, split in ((16, 1), (47, 2), (129, 1), (150, 3), (300, 2)):
        q, s = activations(tokens, columns), token_scales(tokens)
        assert np.array_equal(layer.run(q, s, split=split), layer.expected(q, s))


@with_panels
@pytest.mark.parametrize("offset", [0, 4])
def test_outputs_past_the_caches(offset: int, isa: Isa) -> None:
    layer, tokens = Layer(("i2", 1, 2048, 64, 64, 0, True, TERNARY), isa), 130
    q, s = activations(tokens, 64), token_scales(tokens)
    assert 4 * tokens * layer.rows > 1 << 20
    y, random = layer.expected(q, s), np.random.default_rng(1)
    full, row = (random.standard_normal(shape).astype(np.float32) for shape in (y.shape, layer.rows))
    gate = np.maximum(full, 0)
    found = layer.run(q, s, SQUARED_RELU_TIMES, [full, row], split=2, offset=offset)
    assert np.array_equal(found, gate * gate * y + row)


@each_isa
def test_activation_and_tail(isa: Isa) -> None:
    layer = Layer(CASES[0], isa)
    for tokens in (1, 5):
        q, s = activations(tokens, layer.columns), token_scales(tokens)
        y = np.maximum(layer.expected(q, s), 0)
        random = np.random.default_rng(1)
        full = random.standard_normal(y.shape).astype(np.float32)
        row = random.standard_normal(layer.rows).astype(np.float32)
        gate = np.maximum(full, 0)
        found = layer.run(q, s, SQUARED_RELU_TIMES, [full, row], activation="relu")
        assert np.array_equal(found, gate * gate * y + row)


@pytest.mark.parametrize("isa", isas()[:1], ids=lambda isa: isa.name)
def test_scalar_operands(isa: Isa) -> None:
    layer = Layer(CASES[2], isa)
    q, s, scalar = activations(3, layer.columns), token_scales(3), np.full(1, -0.3, np.float32)
    assert np.array_equal(layer.run(q, s, SCALED, [scalar]), scalar * layer.expected(q, s))


@pytest.mark.parametrize("isa", isas()[:1], ids=lambda isa: isa.name)
def test_tokens_that_share_a_scale(isa: Isa) -> None:
    layer = Layer(CASES[0], isa)
    q, s = activations(6, layer.columns), token_scales(2)
    assert np.array_equal(layer.run(q, s), layer.expected(q, s))


@pytest.mark.parametrize("isa", isas()[:1], ids=lambda isa: isa.name)
def test_no_tokens(isa: Isa) -> None:
    layer = Layer(CASES[0], isa)
    assert layer.run(activations(0, layer.columns), token_scales(1)).shape == (0, layer.rows)


def test_scales_are_halves_only_if_nothing_is_lost() -> None:
    layout = linear_layout(DirectLayout.of("i8", isas()[0], INT8, 16, 64, 32, 16, 64))
    scales = np.full((1, 16, 2), 0.5, np.float32)
    assert pack_scales(scales, layout).dtype == np.float16
    for lost in (1 / 3, 1e-9, 65536.0, np.nan):
        scales[0, 3, 1] = lost
        kept = pack_scales(scales, layout)
        assert kept.dtype == np.float32
        assert np.array_equal(kept[0, 0, 1, 3], np.float32(lost), equal_nan=True)


@pytest.mark.parametrize("encoding", ["i2", "t5", "i4", "i8"])
@pytest.mark.parametrize(("group", "panels", "kinds"), [(0, False, 5), (32, False, 5), (0, True, 9)])
@pytest.mark.parametrize("order", ["pages", "lines"])
def test_innermost_loops_stay_in_registers(
    encoding: DirectEncoding, group: int, panels: bool, kinds: int, order: FetchOrder
) -> None:
    isa, levels = replace(Isa.avx512(VNNI), fetch_order=order), {"i4": INT4, "i8": INT8}.get(encoding, TERNARY)
    layout = linear_layout(DirectLayout.of(encoding, isa, levels, 256, 960, group or 960, 128, 960))
    kernel = DirectLinearKernel(layout, Epilogue(256, 1, 30 if group else 1, True), half=True, panels=panels)
    blocks = re.split(r"\n(?=\.LBB\w+:)", assembly(kernel.build(isa), isa))
    ends = [(block, re.search(rf"\bj\w+\s+{re.escape(block.partition(':')[0])}\b", block)) for block in blocks]
    loops = [block[: end.end()] for block, end in ends if end is not None]
    multiplying = [loop for loop in loops if "vpdpbusd" in loop]
    # One for each number of tokens that are taken together; with panels three more, and one that adds up activations.
    assert len(multiplying) == kinds
    spills = re.compile(r"zmm\d+, .*\(%rsp|\(%rsp\S*\), %zmm")
    # Four vectors of t5 at a time are one register too many: stored and loaded once in twenty products.
    allowed = 2 if (encoding, order) == ("t5", "lines") else 0
    assert max(len(spills.findall(loop)) for loop in multiplying) <= allowed
    assert sum(bool(spills.search(loop)) for loop in multiplying) <= allowed // 2


OPERANDS: tuple[TailOperand, ...] = ("y", "full", "row", "scalar")


def test_names_tell_kernels_apart() -> None:
    layout = linear_layout(DirectLayout.of("i8", isas()[0], INT8, 16, 64, 32, 16, 64))
    epilogue = Epilogue(16, 1, 2, False)
    tails = [Tail((Instr("arith.mulf", (0, 1), "f32"),), 2, ("y", operand)) for operand in OPERANDS]
    kernels = [DirectLinearKernel(layout, epilogue, half, tail) for half in (False, True) for tail in (None, *tails)]
    assert len({kernel.name for kernel in kernels}) == len(kernels)


KINDS: list[tuple[DirectEncoding, tuple[int, ...]]] = [
    ("i2", TERNARY),
    ("i2", (1, 2, 3)),
    ("t5", TERNARY),
    ("i4", INT4),
    ("i8", INT8),
    ("i8", (-127, -5, 3, 127)),
]


@pytest.mark.slow
@each_isa
@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 200), st.integers(1, 300)),
    st.sampled_from((16, 32, 64, 96, 128)),
    st.sampled_from((0, 1, 7, 16, 32, 64, 128)),
    st.booleans(),
    st.sampled_from((1, 2, 3, 5, 17, 33, 128, 135)),
    st.integers(1, 4),
    st.sampled_from(KINDS),
    st.integers(0, 1000),
)
def test_equals_the_interpreter_at_random(
    isa: Isa,
    shape: tuple[int, int, int],
    bm: int,
    group: int,
    halves: bool,
    tokens: int,
    split: int,
    kind: tuple[DirectEncoding, tuple[int, ...]],
    seed: int,
) -> None:
    (planes, rows, columns), (encoding, levels) = shape, kind
    layer = Layer((encoding, planes, rows, columns, bm, group, halves, levels), isa, seed)
    q, s = activations(tokens, columns, seed), token_scales(tokens)
    assert np.array_equal(layer.run(q, s, split=split), layer.expected(q, s))


@pytest.mark.slow
@pytest.mark.parametrize("isa", [Isa.neon(), Isa.portable("aarch64")], ids=lambda isa: isa.name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_on_aarch64(case: Case, isa: Isa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "run_kernel", run_on_aarch64)
    layer = Layer(case, isa)
    for tokens in (1, 3, 17):
        q, s = activations(tokens, layer.columns), token_scales(tokens)
        assert np.array_equal(layer.run(q, s, split=2), layer.expected(q, s))

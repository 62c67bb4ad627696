"""Every encoding on AArch64, under an emulator: whole segments give what the interpreter says, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp, f32, i8
from xdsl.ir import Operation, SSAValue

from neuc.backends.cpu.isa import Isa
from neuc.dialects.context import NeucContext
from neuc.dialects.store import tensor_type
from neuc.dialects.ternary import ConvOp, LinearOp, QuantizeOp
from neuc.dialects.ternary_encodings import ENCODINGS
from neuc.dialects.ternary_types import ScaleAttr, Window
from neuc.dialects.ternary_weights import make_weight
from neuc.passes.tile_lut import TileLut
from segment_harness import expected_of, function_of, run_segment

pytestmark = pytest.mark.slow

ISAS = (Isa.neon(), Isa.portable("aarch64"))
CELLS = [
    ("tl2", (-1, 0, 1)),
    ("tl1", (-1, 0, 1)),
    ("tl1", (-1, 1)),
    ("bitserial", (-1, 0, 1)),
    ("bitserial", (-3, -1, 1, 3)),
    ("t5", (-1, 0, 1)),
    ("i2", (-1, 0, 1)),
    ("i2", (-3, -1, 1, 3)),
    ("i4", tuple(range(-8, 8))),
    ("i8", (-5, 0, 9)),
]


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize(("encoding", "levels"), CELLS, ids=str)
def test_linear_and_convolution(encoding: str, levels: tuple[int, ...], isa: Isa) -> None:
    context = NeucContext()
    rng = np.random.default_rng(0)
    row, window = ScaleAttr.of("row"), Window((3, 3), (2, 1), (1, 0, 1, 1), (1, 1))

    def weight(name: str, n: int, k: int) -> Operation:
        values = rng.choice(np.array(levels, np.int8), (1, n, k))
        scales = rng.uniform(0.1, 1, (1, n, 1)).astype(np.float32)
        return make_weight(name, values, scales, context.weights, scale=row, levels=levels)

    def linear(args: Sequence[SSAValue]) -> Sequence[Operation]:
        quantize, w = QuantizeOp(args[0]), weight("w", 37, 101)
        return [quantize, w, LinearOp(quantize.q, quantize.s, w.results[0])]

    def conv(args: Sequence[SSAValue]) -> Sequence[Operation]:
        w = weight("v", 19, 6 * 9)
        return [w, ConvOp(args[0], args[1], w.results[0], window)]

    for build, types, arrays in (
        (linear, [tensor_type(f32, ["B", 101])], [rng.standard_normal((5, 101)).astype(np.float32)]),
        (
            conv,
            [tensor_type(i8, ["B", 6, "H", "W"]), tensor_type(f32, ["B"])],
            [rng.integers(-128, 128, (1, 6, 9, 8)).astype(np.int8), np.ones(1, np.float32)],
        ),
    ):
        function = function_of(types, build)
        module = ModuleOp([function])
        TileLut(encoding).apply(context, module)
        function.detach()
        (expected,) = expected_of(function, arrays, context.weights)
        (got,) = run_segment(function, arrays, isa, context.weights)
        np.testing.assert_array_equal(got, expected)


def test_no_encoding_is_left_out() -> None:
    assert {encoding for encoding, _ in CELLS} == set(ENCODINGS)

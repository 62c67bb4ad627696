"""A `dense.layer_norm {rms}` and the `ternary.quantize` after it in one launch; alone, see `layer_norm.py`."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i32, vec, with_elem
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.layer_norm import row_sum
from neuc.backends.cpu.kernels.strided import Args, chunks, load_elements, narrow, store_elements, tree
from neuc.backends.cpu.kernels.ternary_quantize import MAGNITUDE, code_scale, write_codes


@dataclass(frozen=True)
class RmsNormQuantizeKernel(KernelSpec):
    """Codes and scale of ``x / √(mean(x²) + eps) · gamma``, the bits that two launches would give.

    Slots: 0 x (f32 [rows, length]), 1 gamma (f32 [length]), 2 q (out, int8), 3 s (out, f32 [rows]), 4 length, 5 eps
    (f32). Work units: rows. Scratch: 4 bytes an element of a row.

    Attributes:
        reciprocal: see `TernaryQuantizeKernel`.
    """

    reciprocal: bool = False

    family = "rms_norm_quantize"
    written = (2, 3)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Three sweeps over a row: squares, products and their maximum, codes."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        source, gamma, codes, scales, size, eps = args.ptr(), args.ptr(), args.ptr(), args.ptr(), args.int(), args.f32()
        with b.loop(b.begin, b.end) as row:
            start = row.i * size
            x = b.elem(source, start, f32)
            factor = 1.0 / b.sqrt(row_sum(b, x, size, None, squares=True) / b.sitofp(size, f32) + eps)
            largest = self._products(b, x, gamma, b.scratch, size, factor)
            a = code_scale(b, largest, self.reciprocal)
            b.store(b.f32(1.0) / a, b.elem(scales, row.i, f32))
            write_codes(b, b.scratch, b.ptr(codes, start), size, largest, a)
        return b.finish()

    def _products(self, b: KernelBuilder, x: Val, gamma: Val, out: Val, size: Val, factor: Val) -> Val:
        """Write x · factor · gamma; the bits of the largest magnitude."""
        wide = 4 * b.lanes if b.lanes > 1 else 1

        def step(j: Val, carried: list[Val], mask: Val | None, lanes: int) -> list[Val]:
            y = load_elements(b, x, j, "f32", lanes, mask) * b.splat(factor, lanes)
            y = y * load_elements(b, gamma, j, "f32", lanes, mask)
            store_elements(b, y, out, j, "f32", mask)
            # Lanes outside the mask were loaded as zeros, but an infinite factor makes them NaN.
            bits = b.bitcast(y, with_elem(y.type, i32)) & MAGNITUDE
            bits = bits if mask is None else b.select(mask, bits, b.zero(bits.type))
            return [b.max(carried[0], bits)]

        whole = b.udiv(size, wide) * wide
        with b.loop(0, whole, wide, [b.zero(vec(i32, wide))]) as main:
            main.yield_(step(main.i, main.carried, None, wide))
        (most,) = chunks(b, whole, size, b.lanes, step, [narrow(b, main.results[0], b.lanes, b.max)])
        return tree(b, most, b.max)

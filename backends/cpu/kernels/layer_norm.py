"""Layer normalisation and its root-mean-square form over contiguous rows."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import llvm

from neuc.backends.cpu.builder import KernelBuilder, Val, f32, vec
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.strided import Args, chunks, load_elements, narrow, store_elements, tree


@dataclass(frozen=True)
class LayerNormKernel(KernelSpec):
    """``target[o, :] = (x − mean) / √(var + eps) · scale + bias`` with x = source[o, :], f32.

    The variance is taken of the differences from the mean, in a sweep of its own, so nothing cancels.

    Slots: source, scale if there is one, bias if there is one, target, row size, eps. Work: the rows.

    Attributes:
        scale: there is a scale, of a row's size.
        bias: there is a bias, of a row's size.
        rms: x / √(mean(x²) + eps) instead.
    """

    scale: bool
    bias: bool
    rms: bool

    family = "layer_norm"

    def writes(self) -> tuple[int, ...]:
        return (1 + self.scale + self.bias,)

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Two or three sweeps over a row that then is in the nearest cache."""
        b = KernelBuilder(self.name, isa)
        args = Args(b)
        source = args.ptr()
        scale = args.ptr() if self.scale else None
        bias = args.ptr() if self.bias else None
        target, size, eps = args.ptr(), args.int(), args.f32()
        lanes, count = b.lanes, b.sitofp(size, f32)
        with b.loop(b.begin, b.end) as loop:
            start = loop.i * size
            here, there = b.elem(source, start, f32), b.elem(target, start, f32)
            if self.rms:
                mean = None
            else:
                mean = b.splat(row_sum(b, here, size, None, squares=False) / count, lanes)
            variance = row_sum(b, here, size, mean, squares=True) / count
            factor = b.splat(1.0 / b.sqrt(variance + eps), lanes)

            def finish(j: Val, _: list[Val], mask: Val | None, width: int) -> list[Val]:
                x = load_elements(b, here, j, "f32", width, mask)
                value = (x if mean is None else x - mean) * factor
                if scale is not None:
                    value = value * load_elements(b, scale, j, "f32", width, mask)
                if bias is not None:
                    value = value + load_elements(b, bias, j, "f32", width, mask)
                store_elements(b, value, there, j, "f32", mask)
                return []

            chunks(b, b.i64(0), size, lanes, finish)
        return b.finish()


def row_sum(b: KernelBuilder, here: Val, size: Val, mean: Val | None, *, squares: bool) -> Val:
    """The sum of x, or of (x − mean)², over the row of `size` f32 at `here`; `mean` is in every lane."""
    wide = 4 * b.lanes if b.lanes > 1 else 1
    wide_mean = None if mean is None else b.splat(b.extract(mean, 0), wide)

    def add(old: Val, x: Val, centre: Val | None, mask: Val | None) -> Val:
        if not squares:
            return old + x
        x = x if centre is None else x - centre
        x = x if mask is None else b.select(mask, x, b.zero(x.type))
        return b.fma(x, x, old)

    whole = b.udiv(size, wide) * wide
    with b.loop(0, whole, wide, [b.zero(vec(f32, wide))]) as main:
        main.yield_([add(main.carried[0], load_elements(b, here, main.i, "f32", wide), wide_mean, None)])
    total = narrow(b, main.results[0], b.lanes, lambda x, y: x + y)
    if b.lanes == 1:
        return total

    def rest(j: Val, carried: list[Val], mask: Val | None, width: int) -> list[Val]:
        return [add(carried[0], load_elements(b, here, j, "f32", width, mask), mean, mask)]

    (total,) = chunks(b, whole, size, b.lanes, rest, [total])
    return tree(b, total, lambda x, y: x + y)

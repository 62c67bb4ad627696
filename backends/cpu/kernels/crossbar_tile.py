"""One crossbar tile: convert inputs, multiply with all effects of the array in one pass over the weights, convert back.

The order of steps is that of `dialects/interp/crossbar.py`, which is the specification.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from xdsl.dialects import llvm

from neuc.backends.cpu import vecmath
from neuc.backends.cpu.builder import KernelBuilder, Val, f32, i32, i64
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.backends.cpu.kernels.crossbar_amx import COLUMNS, CodeTiles, CodeTilesEmitter, profile
from neuc.backends.cpu.kernels.crossbar_products import F32, Panel, Product, multiply_panel
from neuc.backends.cpu.kernels.crossbar_random import PER_COUNTER, columns_from, normals
from neuc.backends.cpu.kernels.strided import chunks, load_elements, tree

BLOCK = 32
"""Samples in a work unit; a multiple of those that share a random counter."""
_SKEW = 16
"""Floats between rows of converted inputs, so that they do not fall into the same cache sets."""
VECTORS = 2
FEW = 16
"""Samples for which weights are not worth splitting."""


def panel_columns(isa: Isa) -> int:
    """Weight columns side by side in memory."""
    return VECTORS * isa.f32_lanes


@dataclass(frozen=True)
class CrossbarTileKernel(KernelSpec):
    """out[m, c] = gain[c] · alpha[m] · ADC(array(DAC(x[m, first : first + rows] / alpha[m]))).

    Slots: 0 x (f32, rows of `stride` floats), 1 weights (panels [ceil(C / panel)][R][panel], missing columns zero),
    2 gains (f32, whole panels), 3 state (i64: seed, number of the run), 4 out (f32 [M, C]), 5 M, 6 stride, 7 first,
    8 number of the tile, 9 number of its use, and with `adc_errors` 10 the steps that each code is off
    (f32 [levels + 1]). Work units: ceil(M / `BLOCK`) blocks of samples.

    Attributes:
        rows: input lines of the tile.
        columns: output lines.
        dac_levels: steps of the input converter over its range; 0 for none.
        dac_bound: largest input after scaling.
        input_range: what is scaled to 1; 0 for each sample's largest magnitude.
        part: which part of the code is applied: ``whole``, ``positive``, ``negative`` or ``bit0`` … ``bit15``.
        curvature: nonlinear current-voltage curve sinh(curvature v) / sinh(curvature); 0 for a straight one.
        adc_levels: steps of the output converter over its range; 0 for none.
        adc_bound: largest output; 0 for none.
        wire_drop: factor on the closed form of the loss along output lines; 0 for none.
        wire_ratio: input lines over the ratio of wire to device conductance.
        weight_noise: noise of a product relative to sqrt(Σ |w| v²).
        out_noise: standard deviation at the output converter.
        doublings: times a sample is converted again at half the input because an output was out of range.
        adc_errors: the steps of the output converter are not all of one size.
    """

    rows: int
    columns: int
    dac_levels: int = 0
    dac_bound: float = 1.0
    input_range: float = 0.0
    part: str = "whole"
    curvature: float = 0.0
    adc_levels: int = 0
    adc_bound: float = 0.0
    wire_drop: float = 0.0
    wire_ratio: float = 0.0
    weight_noise: float = 0.0
    out_noise: float = 0.0
    doublings: int = 0
    adc_errors: bool = False

    family = "crossbar_tile"
    written = (4,)

    @property
    def products(self) -> list[Product]:
        """The sums that are needed, the first being the ideal one."""
        found = [Product(0)]
        if self.wire_drop:
            found += [Product(1), Product(2, magnitude=True)]
        if self.weight_noise:
            found.append(Product(self.variants - 1, magnitude=True))
        return found

    @property
    def dac_step(self) -> float:
        """The input converter's step."""
        return 2 * self.dac_bound / self.dac_levels

    @property
    def variants(self) -> int:
        """Floats for each input line: v; v·profile and |v| for wires; v² for noise."""
        return 1 + 2 * bool(self.wire_drop) + bool(self.weight_noise)

    @property
    def noisy(self) -> bool:
        """Whether random numbers are drawn."""
        return bool(self.weight_noise or self.out_noise)

    @property
    def a_row(self) -> int:
        """Bytes between rows of converted inputs."""
        return (self.rows * self.variants + _SKEW) * F32

    def padded(self, isa: Isa) -> int:
        """Columns in whole panels."""
        return -(-self.columns // panel_columns(isa)) * panel_columns(isa)

    def scratch_bytes(self, isa: Isa) -> int:
        """Scratch memory of a thread: sums, their variances, and three numbers for each sample; converted inputs."""
        own = BLOCK * (self.padded(isa) * F32 * (1 + bool(self.weight_noise)) + 3 * F32)
        tiles = self.tiles(isa)
        return own + max(BLOCK * self.a_row, 0 if tiles is None else tiles.scratch_bytes)

    def tiles(self, isa: Isa) -> CodeTiles | None:
        """The products of many samples on AMX, if they can be there."""
        if not CodeTiles.fits(isa, self.dac_levels, self.part, self.curvature):
            return None
        return CodeTiles(self.rows, self.dac_step, bool(self.wire_drop), bool(self.weight_noise))

    def build(self, isa: Isa) -> llvm.FuncOp:
        """Blocks of samples, each through the whole tile."""
        return _TileEmitter(self, isa).emit()


class _TileEmitter:
    """Writes a `CrossbarTileKernel`; scratch memory holds sums, variances, alphas, gains, overflow marks, inputs.

    With AMX there are two ways to multiply: blocks of more than `FEW` samples go through `CodeTilesEmitter`.
    """

    def __init__(self, spec: CrossbarTileKernel, isa: Isa) -> None:
        self.spec = spec
        self.b = b = KernelBuilder(spec.name, isa)
        self.padded = spec.padded(isa)
        self.sums = b.scratch
        self.variances = b.ptr(self.sums, BLOCK * self.padded * F32)
        end = b.ptr(self.sums, BLOCK * self.padded * F32 * (1 + bool(spec.weight_noise)))
        self.alphas, self.shrinks, self.overflows, self.inputs = (b.ptr(end, i * BLOCK * F32) for i in range(4))
        self.samples = b.arg_int(5)
        tiles = spec.tiles(isa)
        self.tiles = None if tiles is None else CodeTilesEmitter(b, tiles, self.inputs)

    def emit(self) -> llvm.FuncOp:
        b = self.b
        if self.tiles is not None:
            self.tiles.configure()
        with b.loop(b.begin, b.end) as unit:
            first = unit.i * BLOCK
            count = b.min(self.samples - first, b.i64(BLOCK))
            with b.loop(0, count) as row:
                b.store(b.f32(1.0), b.elem(self.shrinks, row.i, f32))
            # Only samples whose outputs overflowed come out differently the next time.
            with b.loop(0, self.spec.doublings + 1, init=[b.i32(1)]) as attempt:
                with b.if_(b.icmp("ne", attempt.carried[0], 0)) as again:
                    self._through_array(first, count)
                    left = self._convert_outputs(first, count)
                    again.yield_([left])
                with again.else_():
                    again.yield_([b.i32(0)])
                attempt.yield_([again.results[0]])
        if self.tiles is not None:
            self.tiles.release()
        return b.finish()

    def _through_array(self, first: Val, count: Val) -> None:
        b, tiles = self.b, self.tiles
        if tiles is None:
            self._convert_inputs(first, count, None)
            self._multiply(count)
            return
        many = b.icmp("sgt", count, FEW)
        with b.if_(many) as branch:
            self._convert_inputs(first, count, tiles)
            self._multiply_codes(count, tiles)
        with branch.else_():
            self._convert_inputs(first, count, None)
            self._multiply(count)

    # ------------------------------------------------------------------------------------------------ inputs

    def _convert_inputs(self, first: Val, count: Val, tiles: CodeTilesEmitter | None) -> None:
        b, spec = self.b, self.spec
        if tiles is not None:
            tiles.fill(count)
        rows = b.i64(spec.rows)
        with b.loop(0, count) as row:
            x = b.elem(b.arg_ptr(0), (first + row.i) * b.arg_int(6) + b.arg_int(7), f32)
            alpha = b.f32(spec.input_range) if spec.input_range else self._largest(x)
            b.store(alpha, b.elem(self.alphas, row.i, f32))
            shrink = b.load(b.elem(self.shrinks, row.i, f32), f32)
            positive = b.fcmp("ogt", alpha, 0.0)
            scale = b.select(positive, b.f32(1.0) / alpha * shrink, b.f32(0.0))
            cells = b.ptr(self.inputs, row.i * spec.a_row)

            def convert(k: Val, _: list[Val], mask: Val | None, width: int) -> list[Val]:
                v = self._line_values(load_elements(b, x, k, "f32", width, mask) * b.splat(scale, width))
                if tiles is not None:
                    codes = vecmath.round_even(b, v * b.const(1 / spec.dac_step, v.type))
                    tiles.store_codes(codes, k, row.i)
                else:
                    self._store_cells(v, k, cells, mask, width)
                return []

            chunks(b, b.i64(0), rows, b.lanes, convert)

    def _largest(self, x: Val) -> Val:
        b = self.b

        def step(k: Val, carried: list[Val], mask: Val | None, width: int) -> list[Val]:
            return [b.max(b.abs(load_elements(b, x, k, "f32", width, mask)), carried[0])]

        (found,) = chunks(b, b.i64(0), b.i64(self.spec.rows), b.lanes, step, [b.zero(b.vtype())])
        return tree(b, found, b.max)

    def _line_values(self, scaled: Val) -> Val:
        """What is applied to the lines for inputs that are scaled already."""
        b, spec = self.b, self.spec
        code = scaled
        if spec.dac_levels:
            step = spec.dac_step
            code = vecmath.round_even(b, scaled / b.const(step, scaled.type))
            if spec.part.startswith("bit"):
                bit = b.fptosi_sat(b.abs(self._clip(code, spec.dac_bound / step)), i32)
                on = b.sitofp((bit >> int(spec.part[3:])) & 1, f32)
                return b.copysign(on * b.const(spec.dac_bound, scaled.type), code)
            code = code * b.const(step, scaled.type)
        if spec.dac_bound:
            code = self._clip(code, spec.dac_bound)
        if spec.part != "whole":
            code = b.max(code if spec.part == "positive" else -code, 0.0)
        if spec.curvature:
            power = vecmath.exp(b, code * b.const(spec.curvature, code.type))
            code = (power - 1.0 / power) * b.const(0.5 / math.sinh(spec.curvature), code.type)
        return code

    def _clip(self, x: Val, bound: float) -> Val:
        b = self.b
        return b.max(b.min(x, bound), -bound)

    def _store_cells(self, v: Val, k: Val, cells: Val, mask: Val | None, width: int) -> None:
        """V and what goes into the other products, side by side for each input line."""
        b, spec = self.b, self.spec
        if spec.variants == 1:
            address = b.elem(cells, k, f32)
            b.store(v, address) if mask is None else b.masked_store(v, address, mask)
            return
        for lane in range(width):
            one = b.extract(v, lane)
            line = k + lane

            def store(one: Val = one, line: Val = line) -> None:
                cell = b.elem(cells, line * spec.variants, f32)
                values = [one]
                if spec.wire_drop:
                    values += [one * profile(b, line, spec.rows), b.abs(one)]
                if spec.weight_noise:
                    values.append(one * one)
                for index, value in enumerate(values):
                    b.store(value, b.elem(cell, index, f32))

            if mask is None:
                store()
            else:
                with b.if_(b.icmp("slt", line, spec.rows)):
                    store()

    # ------------------------------------------------------------------------------------------------ array

    def _multiply(self, count: Val) -> None:
        b, spec = self.b, self.spec
        wide = VECTORS * b.lanes
        with b.loop(0, self.padded // wide) as panel:
            weights = b.ptr(b.arg_ptr(1), panel.i * (spec.rows * wide * F32))
            operands = Panel(spec.rows, self.inputs, spec.a_row, spec.variants, weights, VECTORS)
            multiply_panel(b, operands, spec.products, count, partial(self._store_outputs, panel.i))

    def _multiply_codes(self, count: Val, tiles: CodeTilesEmitter) -> None:
        b, spec = self.b, self.spec
        with b.loop(0, self.padded // COLUMNS) as panel:
            weights = b.ptr(b.arg_ptr(1), panel.i * (spec.rows * COLUMNS * F32))
            tiles.multiply(weights, count, partial(self._store_outputs, panel.i))

    def _store_outputs(self, panel: Val, row: Val, sums: list[list[Val]]) -> None:
        """Keep a row's sums of one panel, [vector][product], as currents and their variances."""
        b, wide = self.b, VECTORS * self.b.lanes
        at = (row * self.padded + panel * wide) * F32
        for v, values in enumerate(sums):
            total, variance = self._array_output(values)
            b.store(total, b.ptr(b.ptr(self.sums, at), v * b.lanes * F32))
            if variance is not None:
                b.store(variance, b.ptr(b.ptr(self.variances, at), v * b.lanes * F32))

    def _array_output(self, sums: list[Val]) -> tuple[Val, Val | None]:
        """The current of a line, and Σ |w| v²."""
        b, spec = self.b, self.spec
        total = sums[0]
        if spec.wire_drop:
            a = sums[2] * b.const(spec.wire_ratio, total.type)
            c = a * (a * (a * b.const(0.05, a.type) - b.const(0.2, a.type)) + b.const(0.5, a.type))
            total = total - c * sums[1] * b.const(spec.wire_drop, total.type)
        return total, sums[-1] if spec.weight_noise else None

    # ------------------------------------------------------------------------------------------------ outputs

    def _convert_outputs(self, first: Val, count: Val) -> Val:
        """Noise, converter, scales, stores. Returns whether a sample has to be converted again."""
        b, spec = self.b, self.spec
        zero = b.i32(0)
        if spec.doublings:
            with b.loop(0, count) as row:
                b.store(zero, b.elem(self.overflows, row.i, i32))
        with b.loop(0, count, PER_COUNTER) as group:

            def columns(column: Val, _: list[Val], mask: Val | None, width: int) -> list[Val]:
                noise = self._noise(first + group.i, column, width) if spec.noisy else None
                for r in range(PER_COUNTER):
                    row = group.i + r
                    with b.if_(b.icmp("slt", row, count)):
                        self._output(first, row, column, None if noise is None else noise[r], mask, width)
                return []

            chunks(b, b.i64(0), b.i64(spec.columns), b.lanes, columns)
        if not spec.doublings:
            return zero
        with b.loop(0, count, init=[zero]) as row:
            over = b.load(b.elem(self.overflows, row.i, i32), i32)
            place = b.elem(self.shrinks, row.i, f32)
            shrink = b.load(place, f32)
            b.store(b.select(b.icmp("ne", over, 0), shrink * 0.5, shrink), place)
            row.yield_([row.carried[0] | over])
        return row.results[0]

    def _noise(self, sample: Val, column: Val, width: int) -> tuple[Val, Val, Val, Val]:
        b = self.b
        state = b.arg_ptr(3)

        def word(value: Val) -> Val:
            return b.splat(b.trunc(value, i32), width)

        key = (word(b.load(state, i64)), word(b.load(b.elem(state, 1, i64), i64)))
        group, tile = word(b.udiv(sample, PER_COUNTER)), word(b.arg_int(8))
        return normals(b, (columns_from(b, column, width), group, tile, word(b.arg_int(9))), key)

    def _output(self, first: Val, row: Val, column: Val, noise: Val | None, mask: Val | None, width: int) -> None:
        b, spec = self.b, self.spec
        at = row * self.padded + column
        y = load_elements(b, self.sums, at, "f32", width, mask)
        if noise is not None:
            if spec.weight_noise:
                total = load_elements(b, self.variances, at, "f32", width, mask)
                square = total * b.const(spec.weight_noise**2, y.type) + b.const(spec.out_noise**2, y.type)
                y = y + b.sqrt(square) * noise
            else:
                y = y + b.const(spec.out_noise, y.type) * noise
        if spec.adc_levels:
            step = 2 * spec.adc_bound / spec.adc_levels
            if spec.adc_errors:
                y = y - self._step_errors(vecmath.round_even(b, y / b.const(step, y.type))) * b.const(step, y.type)
            y = vecmath.round_even(b, y / b.const(step, y.type)) * b.const(step, y.type)
        if spec.adc_bound:
            if spec.doublings:
                self._mark(b.fcmp("ogt", b.abs(y), spec.adc_bound), row, mask)
            y = self._clip(y, spec.adc_bound)
        shrink = b.load(b.elem(self.shrinks, row, f32), f32)
        alpha = b.load(b.elem(self.alphas, row, f32), f32) / shrink
        gain = load_elements(b, b.arg_ptr(2), column, "f32", width, mask)
        y = y * b.splat(alpha, width) * gain
        target = b.elem(b.arg_ptr(4), (first + row) * spec.columns + column, f32)
        b.store(y, target) if mask is None else b.masked_store(y, target, mask)

    def _step_errors(self, code: Val) -> Val:
        """How many steps a real converter is off at a code."""
        b, half = self.b, self.spec.adc_levels // 2
        index = b.fptosi_sat(self._clip(code, half), i32) + half
        lanes = [b.load(b.elem(b.arg_ptr(10), b.sext(b.extract(index, i), i64), f32), f32) for i in range(code.lanes)]
        found = b.undef(code.type)
        for i, value in enumerate(lanes):
            found = value if code.lanes == 1 else b.insert(found, value, i)
        return found

    def _mark(self, over: Val, row: Val, mask: Val | None) -> None:
        """Note that an output of this row is out of range."""
        b = self.b
        if mask is not None:
            over = over & mask
        found = b.reduce_max(b.zext(over, i32))
        place = b.elem(self.overflows, row, i32)
        b.store(b.load(place, i32) | found, place)

"""`crossbar` operations as launches: a simulator of each tile, generated like any other kernel.

Nothing happens at `crossbar.dac` and `crossbar.mvm`: a wire has one reader, so `crossbar.adc` launches the whole chain.
Weights and gains of a tile are entries of the weight store under names that `runtime/analog` knows: it replaces what is
in them by what devices hold at the time of use.
"""

from __future__ import annotations

import hashlib

import numpy as np
from xdsl.ir import SSAValue

from neuc.backends.cpu.kernels.crossbar_sum import CrossbarSumKernel
from neuc.backends.cpu.kernels.crossbar_tile import BLOCK, CrossbarTileKernel, panel_columns
from neuc.backends.cpu.kernels.gemm import pack_panels
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.dialects import crossbar
from neuc.dialects.crossbar_tiles import CompensateOp, ProgramOp, VerifyOp, gains_name, program_of, weights_name
from neuc.dialects.crossbar_types import tile_of
from neuc.dialects.dims import Dim, product
from neuc.dialects.lazy_array import LazyArray
from neuc.errors import InternalError

STATE = "crossbar.state"
"""Entry with the seed and the number of the run, i64 [2]."""


@lowers(ProgramOp)
def lower_program(op: ProgramOp, s: SegmentLowering) -> None:
    """The tile's weights become an entry where it is used."""


@lowers(VerifyOp)
def lower_verify(op: VerifyOp, s: SegmentLowering) -> None:
    """Decides what devices hold, which is drawn at run time."""


@lowers(CompensateOp)
def lower_compensate(op: CompensateOp, s: SegmentLowering) -> None:
    """Gains in whole panels, under the tile's name."""
    number = program_of(op.tile).number.value.data
    scales = s.store.get(op.scales.data)
    padded = np.zeros(-(-len(scales) // panel_columns(s.isa)) * panel_columns(s.isa), np.float32)
    padded[: len(scales)] = scales
    s.alias(op.result, _entry(s, gains_name(number), padded))


@lowers(crossbar.DacOp)
def lower_dac(op: crossbar.DacOp, s: SegmentLowering) -> None:
    """Part of the chain that `crossbar.adc` launches."""


@lowers(crossbar.MvmOp)
def lower_mvm(op: crossbar.MvmOp, s: SegmentLowering) -> None:
    """Part of the chain that `crossbar.adc` launches."""


@lowers(crossbar.AdcOp)
def lower_adc(op: crossbar.AdcOp, s: SegmentLowering) -> None:
    """One launch for converter, array and converter."""
    mvm, dac = crossbar.chain_of(op.currents)
    tile, number = tile_of(mvm.tile), program_of(mvm.tile).number.value.data
    weights = s.store.get(program_of(mvm.tile).weights.data)
    packed = _entry(s, weights_name(number), pack_panels(weights, panel_columns(s.isa)))
    kernel = CrossbarTileKernel(
        rows=tile.rows.data,
        columns=tile.columns.data,
        dac_levels=dac.levels.value.data,
        dac_bound=dac.bound.value.data,
        input_range=dac.range.value.data,
        part=dac.part.data,
        curvature=dac.curvature.value.data,
        adc_levels=op.levels.value.data,
        adc_bound=op.bound.value.data,
        wire_drop=mvm.wire_drop.value.data,
        wire_ratio=mvm.wire_ratio.value.data,
        weight_noise=mvm.noise.value.data,
        out_noise=op.noise.value.data,
        doublings=op.doublings.value.data,
        adc_errors=op.errors is not None,
    )
    errors = [] if op.errors is None else [_entry(s, op.errors.data, s.store.get(op.errors.data))]
    state = _entry(s, STATE, np.zeros(2, np.int64))
    dims = s.dims(dac.x)
    samples = product(dims[:-1])
    s.launch(
        kernel,
        [
            s.buffer(dac.x),
            packed,
            s.buffer(op.gains),
            state,
            s.buffer(op.result),
            samples,
            dims[-1],
            dac.first.value.data,
            number,
            crossbar.USES_OF_TURN * _step(op, s) + crossbar.use_number(dac.part.data, op.turn.value.data),
            *errors,
        ],
        work=samples.ceildiv(BLOCK),
        scratch=kernel.scratch_bytes(s.isa),
    )


def _step(op: crossbar.AdcOp, s: SegmentLowering) -> Dim:
    """The number of the step of the loop that a conversion is in: known where it is unrolled."""
    if op.step is None:
        return Dim.of(0)
    known, symbol = s.constant(op.step), s.fact(op.step)
    if known is None and not isinstance(symbol, Dim):
        raise InternalError("crossbar.adc takes the step of another than its loop")
    return symbol if isinstance(symbol, Dim) else Dim.of(int(np.asarray(known)))


@lowers(crossbar.AccumulateOp)
def lower_accumulate(op: crossbar.AccumulateOp, s: SegmentLowering) -> None:
    """One launch that adds all parts."""
    dims = s.dims(op.result)
    y = s.buffer(op.result)
    kernel = CrossbarSumKernel(
        columns=dims[-1].value,
        widths=tuple(s.dims(part)[-1].value for part in op.parts),
        offsets=tuple(op.starts.get_values()),
        factors=tuple(op.factors.get_values()),
        biased=op.bias is not None,
        activation=op.activation.kind.value,
        alpha=op.activation.alpha,
        beta=op.activation.beta,
    )
    bias = y if op.bias is None else s.buffer(op.bias)
    parts = [s.buffer(part) for part in op.parts]
    s.launch(kernel, [y, bias, dims[-1], Dim.of(0), *parts], work=product(dims[:-1]))


def _entry(s: SegmentLowering, name: str, array: np.ndarray) -> SSAValue:
    """The entry `name`, which equal contents under other names do not replace: devices differ even so."""
    identity = hashlib.sha256(f"{name}:{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()
    made = LazyArray(array.shape, array.dtype, identity, 1, lambda begin, end: array)
    buffer = s.weight(name, made)
    if name not in s.store:
        raise InternalError(f"the weight store knows {name!r} under another name")
    return buffer

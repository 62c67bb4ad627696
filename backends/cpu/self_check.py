"""Checks of product kernels that an artifact carries: a small input for each, and the right result.

The runtime runs them when it loads the artifact (`runtime/self_check.py`). The results are numpy's, from the weights as
they were before packing, so a check covers packing and the kernel; nothing here knows an encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from xdsl.dialects import arith, math
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, SSAValue

from neuc.backends.cpu.encodings import CpuEncoding, PackedLayout
from neuc.backends.cpu.kernels.direct_i8 import DirectI8Kernel
from neuc.backends.cpu.kernels.direct_linear import DirectLinearKernel, pack_scales, panel_products
from neuc.backends.cpu.kernels.linear_epilogue import TailOperand
from neuc.backends.cpu.kernels.ternary_conv import TernaryConvKernel
from neuc.backends.cpu.lowering import SegmentLowering
from neuc.backends.cpu.packing.direct import DirectLayout
from neuc.backends.cpu.packing.lut import TABLE_BYTES
from neuc.dialects.cpu import ExpectOp
from neuc.dialects.cpu_launch import BufferOp, LaunchArg, LaunchOp
from neuc.dialects.dense import MapOp, YieldOp
from neuc.dialects.dims import Dim
from neuc.dialects.interp.core import Env
from neuc.dialects.interp.scalar import run_body

_BEYOND = 64
"""Bytes after the activations, which kernels may read and must not use."""
_SINGLE_ROWS = 16
_F32_EXACT = 2**24
_EXACT_ACTIVATIONS = ("none", "relu")
_SATURATING = 128.0
"""Here sigmoids are 1 and their kind linear, whatever an exponential's last bits are."""
_EXACT_SCALARS = (
    arith.AddfOp,
    arith.SubfOp,
    arith.MulfOp,
    arith.NegfOp,
    arith.MaximumfOp,
    arith.MinimumfOp,
    arith.MaxnumfOp,
    arith.MinnumfOp,
    arith.CmpfOp,
    arith.SelectOp,
    arith.ConstantOp,
    math.AbsFOp,
    YieldOp,
)
"""What gives the same bits everywhere."""


def activations(count: int) -> np.ndarray:
    """`count` fixed codes int8: extremes of both signs first, then all values from -128 to 127, mixed."""
    codes = (np.arange(count) * 83 + 41) % 256 - 128
    ends = np.array([127, -128, -128, 127, -127, 127, 0, -1])
    codes[: len(ends)] = ends[:count]
    return codes.astype(np.int8)


def right_sums(weights: np.ndarray, codes: np.ndarray, segment: int) -> np.ndarray:
    """Σ codes·weights over each segment's columns, int32 [segments, rows]."""
    starts = range(0, weights.shape[1], segment)
    parts = [weights[:, k : k + segment].astype(np.int64) @ codes[k : k + segment].astype(np.int64) for k in starts]
    return np.stack(parts).astype(np.int32)


def checked_rows(layout: PackedLayout) -> int:
    """How many rows of a packed matrix a check is about: those of the first work unit, or of sixteen of single rows."""
    rows, _, unit_rows = _extent(layout)
    return min(rows, max(unit_rows, _SINGLE_ROWS))


def _extent(layout: PackedLayout) -> tuple[int, int, int]:
    """Rows, columns that share a scale, and rows of a work unit."""
    if isinstance(layout, DirectI8Kernel):
        return layout.rows, layout.segment, 1
    return layout.tiling.rows, layout.tiling.segment, layout.tiling.block_rows


@dataclass
class _Body:
    """The body of a `cpu.check` in the making."""

    s: SegmentLowering
    block: Block = field(default_factory=Block)

    def memory(self, nbytes: int) -> SSAValue:
        """Memory of the check's own."""
        return self._buffer(BufferOp("arena", nbytes))

    def constant(self, name: str, array: np.ndarray) -> SSAValue:
        """An array that goes into the artifact."""
        return self._buffer(BufferOp("weight", array.nbytes, entry=self.s.store.add(name, array)))

    def weight(self, value: SSAValue | None) -> SSAValue | int:
        """A weight of the program; 0 if there is none."""
        if value is None:
            return 0
        assert isinstance(value.owner, BufferOp)
        entry = value.owner.entry
        assert entry is not None
        return self._buffer(BufferOp("weight", Dim.parse(value.owner.nbytes.data), entry=entry.data))

    def launch(self, kernel: str, slots: list[LaunchArg], work: int, scratch: int) -> None:
        self.block.add_op(LaunchOp(kernel, slots, work=work, scratch=scratch))

    def expect(self, result: SSAValue, name: str, right: np.ndarray, stride: int) -> None:
        """End the check: int32 rows that `result` holds every `stride` numbers."""
        self.block.add_op(ExpectOp(result, self.s.store.add(f"check.{name}", right), stride))
        self.s.check(self.block)

    def _buffer(self, op: BufferOp) -> SSAValue:
        self.block.add_op(op)
        return op.result


def add_check(
    s: SegmentLowering,
    encoding: CpuEncoding,
    layout: PackedLayout,
    packed: tuple[SSAValue, SSAValue | None],
    first_rows: np.ndarray,
    tables: int,
) -> None:
    """Have the kernel for a packed matrix tried on one token, and the one that makes its tables.

    Args:
        s: the segment that launches the kernel.
        encoding: how the matrix is encoded.
        layout: how it lies.
        packed: buffers of the packed bytes and of what sums start from.
        first_rows: its first `checked_rows` before packing, int8 [n, K].
        tables: tables a token that the launches read; 0 for direct encodings.
    """
    product, body = encoding.product(s.isa, layout), _Body(s)
    columns, (rows, segment, unit_rows) = first_rows.shape[1], _extent(layout)
    codes = activations(columns + _BEYOND)
    source = body.constant(f"check.codes{columns}", codes)
    if encoding.tables is not None:
        build = encoding.tables(s.isa, layout).build(tables)
        made = body.memory(tables * TABLE_BYTES)
        body.launch(build.name, [source, made, 1], build.units_per_token, build.scratch)
        source = made
    sums = right_sums(first_rows, codes[:columns], segment)
    result = body.memory(4 * len(sums) * rows)
    slots: list[LaunchArg] = [source, body.weight(packed[0]), result, 1, body.weight(packed[1]), tables]
    body.launch(product.kernel.name, slots, -(-len(first_rows) // unit_rows), product.scratch)
    body.expect(result, product.kernel.name, sums, rows)


def add_linear_check(
    s: SegmentLowering, kernel: DirectLinearKernel, packed: SSAValue, first_rows: np.ndarray, tail: MapOp | None
) -> None:
    """Have a fused linear layer tried on one token, and on as many as AMX tiles take, with scales of 1 and no bias.

    Nothing is added where the result is not the same bits everywhere: an exponential of the layer's own outputs, say.

    Args:
        s: the segment that launches the kernel.
        kernel: the kernel.
        packed: buffer of the packed bytes.
        first_rows: the first rows of each plane before packing, int8 [P, n, K].
        tail: the element-wise operation that the kernel ends with.
    """
    e, t = kernel.epilogue, kernel.layout.tiling
    rounding = [] if tail is None else [op for op in tail.body.block.ops if not isinstance(op, _EXACT_SCALARS)]
    own = set[SSAValue]() if tail is None or kernel.tail is None else _made_of_outputs(tail, kernel.tail.operands)
    if e.activation not in _EXACT_ACTIVATIONS or any(value in own for op in rounding for value in op.operands):
        return
    planes, count, columns = first_rows.shape
    blocks = -(-count // t.block_rows)
    ones = pack_scales(np.ones((planes, blocks * t.block_rows, t.segments), np.float32), _rows(kernel.layout, blocks))
    many = panel_products(s.isa) if kernel.panels else None
    for tokens in (1,) if many is None else (1, many.least_tokens):
        body, codes = _Body(s), activations(tokens * columns + _BEYOND)
        y = np.zeros((tokens, e.rows), np.float32)
        for token, row in enumerate(codes[: tokens * columns].reshape(tokens, columns)):
            for plane in first_rows:
                for sums in right_sums(plane, row, t.segment):
                    y[token, :count] += sums.astype(np.float32)
        y = np.maximum(y, 0) if e.activation == "relu" else y
        operands: list[np.ndarray] = []
        if tail is not None and kernel.tail is not None:
            for number, kind in enumerate(kernel.tail.operands):
                shape = {"scalar": (1,), "row": (e.rows,)}.get(kind, y.shape)
                # Small, none of them zero, of both signs; or large, where sigmoids are 1 however they are computed.
                other = np.full(shape, _SATURATING) if rounding else (np.arange(np.prod(shape)) * 5 + number) % 16 - 7.5
                operands.append(y if kind == "y" else other.astype(np.float32).reshape(shape))
            env = Env(ModuleOp([]), s.store)
            results = [
                run_body(tail.body.block, [x.astype(t) for x in operands], env) for t in (np.float32, np.float64)
            ]
            y, wide = (np.broadcast_to(result.astype(np.float32), y.shape) for result in results)
            if rounding and not (np.array_equal(y, wide) and np.isfinite(y).all()):
                return
        result = body.memory(4 * tokens * e.rows)
        others = [] if kernel.tail is None else zip(operands, kernel.tail.operands, strict=True)
        slots: list[LaunchArg] = [
            body.constant(f"check.codes{tokens * columns}", codes),
            body.weight(packed),
            result,
            tokens,
            body.constant(f"check.one{tokens}", np.ones(tokens, np.float32)),
            body.constant(f"check.ones{ones.size}", ones if kernel.half else ones.astype(np.float32)),
            body.constant(f"check.zeros{e.rows}", np.zeros(e.rows, np.float32)) if e.bias else 0,
            1,
            *(body.constant(f"check.operand.{kernel.name}", array) for array, kind in others if kind != "y"),
        ]
        body.launch(kernel.name, slots, blocks, kernel.scratch_bytes(s.isa))
        right = np.ascontiguousarray(y[:, :count])
        body.expect(result, kernel.name, right.view(np.int32), e.rows)


def _made_of_outputs(tail: MapOp, kinds: Sequence[TailOperand]) -> set[SSAValue]:
    """The values of a tail's body that depend on the layer's outputs."""
    own: set[SSAValue] = {value for value, kind in zip(tail.body.block.args, kinds, strict=True) if kind == "y"}
    for op in tail.body.block.ops:
        if own.intersection(op.operands):
            own.update(op.results)
    return own


def _rows(layout: DirectLayout, blocks: int) -> DirectLayout:
    """The layout of the first blocks of rows alone."""
    t = layout.tiling
    return replace(layout, tiling=replace(t, rows=blocks * t.block_rows))


def add_conv_check(
    s: SegmentLowering, kernel: TernaryConvKernel, packed: tuple[SSAValue, SSAValue | None], matrix: np.ndarray
) -> None:
    """Have a convolution tried on an image of one window, with scales of 1 and no bias, so that floats are exact.

    Nothing is added where they would not be: very many columns, or an activation that rounds.

    Args:
        s: the segment that launches the kernel.
        kernel: the kernel.
        packed: buffers of the packed bytes and of what sums start from.
        matrix: the first channel group's weights before packing, int8 [P·N, K], columns by position, then channel.
    """
    e, columns = kernel.epilogue, matrix.shape[1]
    most = columns * 128 * e.planes * int(np.abs(matrix.astype(np.int16)).max(initial=1))
    if e.activation not in _EXACT_ACTIVATIONS or most >= _F32_EXACT:
        return
    body = _Body(s)
    codes = activations(columns)
    sizes = [(size - 1) * step + 1 for size, step in zip(kernel.kernel, kernel.dilations)]
    image = activations(int(np.prod(sizes)) * kernel.groups * kernel.channels + _BEYOND)
    window = image[:-_BEYOND].reshape(*sizes, kernel.groups * kernel.channels)
    taps = tuple(slice(None, None, step) for step in kernel.dilations)
    window[(*taps, slice(0, kernel.channels))] = codes.reshape(*kernel.kernel, kernel.channels)
    sums = right_sums(matrix, codes, columns).reshape(e.planes, e.rows).sum(axis=0, dtype=np.int64)
    right = (np.maximum(sums, 0) if e.activation == "relu" else sums).astype(np.float32)
    result = body.memory(4 * e.rows)
    slots: list[LaunchArg] = [
        body.constant(f"check.image.{kernel.name}", image),
        body.weight(packed[0]),
        result,
        body.constant("check.one", np.ones(1, np.float32)),
        body.weight(packed[1]),
        body.constant(f"check.ones{e.planes * e.rows}", np.ones(e.planes * e.rows, np.float32)),
        body.constant(f"check.zeros{e.rows}", np.zeros(e.rows, np.float32)) if e.bias else 0,
        *sizes,
        *(1 for _ in sizes),
    ]
    body.launch(kernel.name, slots, 1, kernel.scratch_bytes(s.isa))
    body.expect(result, kernel.name, right.view(np.int32).reshape(1, -1), e.rows)

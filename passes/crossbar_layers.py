"""Layers as what a crossbar computes: blocks of a constant matrix between slices of inputs and of outputs.

A convolution is a product of its windows with a matrix, one block for each group; a ternary layer has a block for each
plane. Splitting blocks into tiles is `map_to_crossbar.py`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter

from neuc.dialects.dense import ConcatOp, ConvOp, MatMulOp, PadOp, ReshapeOp, SliceOp, TransposeOp
from neuc.dialects.dense_attrs import ActivationAttr
from neuc.dialects.dims import Dim, product
from neuc.dialects.store import ConstantOp, constant_value, dims_of, element_of, tensor_type
from neuc.dialects.ternary import ConvOp as TernaryConvOp
from neuc.dialects.ternary import LinearOp, QuantizeOp
from neuc.dialects.ternary_weights import defining_weight, weight_arrays
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error
from neuc.passes.analysis.ternary_layers import per_column, weight_matrix

Mappable = MatMulOp | ConvOp | LinearOp | TernaryConvOp
MAPPABLE = (MatMulOp, ConvOp, LinearOp, TernaryConvOp)


@dataclass(frozen=True)
class Block:
    """Part of a layer's matrix.

    Attributes:
        row: the first input it reads.
        column: the first output it adds to.
        matrix: weights, f32 [inputs, outputs].
    """

    row: int
    column: int
    matrix: np.ndarray


@dataclass(frozen=True)
class MappedLayer:
    """A layer as blocks.

    Attributes:
        blocks: what its outputs are summed up from.
        inputs: inputs of the whole matrix.
        columns: outputs.
        bias: added to the outputs, [outputs].
        activation: applied to them.
    """

    blocks: tuple[Block, ...]
    inputs: int
    columns: int
    bias: SSAValue | None
    activation: ActivationAttr


def reason_for_cpu(op: Operation, store: WeightStore) -> str:
    """Why a layer stays on the CPU; empty if a crossbar can compute it.

    Raises:
        Error: NEUC-E650, its weights hold NaN or infinity.
    """
    match op:
        case MatMulOp():
            if not isinstance(op.b.owner, ConstantOp):
                return "both operands are activations"
            if len(dims_of(op.b)) != 2 or op.transpose_a is not None:
                return "its weight is no matrix of its last axis"
            if op.bias is not None and not per_column(op.bias, dims_of(op.result)[-1].value):
                return "its bias is not one value per output"
            return _reason_of_constant(op.b, store)
        case ConvOp():
            return (
                "both operands are activations"
                if not isinstance(op.w.owner, ConstantOp)
                else _reason_of_constant(op.w, store)
            )
        case LinearOp() | TernaryConvOp():
            if op.code_offset or not isinstance(op.q.owner, QuantizeOp):
                return "its activations are codes that the model makes itself"
            return ""
        case _:
            return "it is no layer with constant weights"


def mapped_layer(op: Mappable, store: WeightStore, rows: int, columns: int) -> MappedLayer:
    """What a layer is on crossbars of at most `rows` by `columns` devices.

    The size matters for grouped convolutions alone: as many groups as fit become one block-diagonal block.
    """
    matrices, inputs, group, sections = _matrices(op, store)
    blocks: list[Block] = []
    for matrix in matrices:
        per_row, per_column_ = inputs // group, matrix.shape[0] // group
        together = _together(per_row, per_column_, group, rows, columns)
        for first in range(0, group, together):
            count = min(together, group - first)
            block = np.zeros((count * per_row, count * per_column_), np.float32)
            for i in range(count):
                part = matrix[(first + i) * per_column_ : (first + i + 1) * per_column_].T
                block[i * per_row : (i + 1) * per_row, i * per_column_ : (i + 1) * per_column_] = part
            blocks += _at_sections(Block(first * per_row, first * per_column_, block), sections)
    return MappedLayer(tuple(blocks), inputs, matrices[0].shape[0], op.bias, op.activation)


def tile_count(op: Mappable, rows: int, columns: int) -> int:
    """Tiles of at most `rows` by `columns` devices that a layer becomes, found from its shape alone."""
    planes, section = 1, 0
    match op:
        case MatMulOp():
            inputs, outputs, group = dims_of(op.a)[-1].value, dims_of(op.result)[-1].value, 1
        case ConvOp():
            outputs, *window = (d.value for d in dims_of(op.w))
            group = op.group.value.data
            inputs = prod(window) * group
        case LinearOp() | TernaryConvOp():
            group = op.group_count if isinstance(op, TernaryConvOp) else 1
            trits = op.trits
            inputs, outputs, planes = trits.columns * group, trits.rows, trits.plane_count
            section = trits.group_size if trits.groups > 1 else 0
    per_row, per_column_ = inputs // group, outputs // group
    together = _together(per_row, per_column_, group, rows, columns)
    blocks = [min(together, group - first) for first in range(0, group, together)]
    across = sum(
        -(-count * per_column_ // columns)
        * sum(
            -(-min(section or per_row * count, per_row * count - at) // rows)
            for at in _starts(per_row * count, section)
        )
        for count in blocks
    )
    return planes * across


def _together(inputs: int, outputs: int, group: int, rows: int, columns: int) -> int:
    """Groups of `inputs` and `outputs` each that share a tile."""
    return max(1, min(group, rows // max(inputs, 1), columns // max(outputs, 1)))


def _starts(inputs: int, section: int) -> range:
    """Where scales of weights change along `inputs`, every `section`; 0 alone if that is 0."""
    return range(0, inputs, section) if section else range(1)


def _at_sections(block: Block, size: int) -> list[Block]:
    """A block cut where scales of weights change along its inputs, every `size` rows; whole if that is 0."""
    if not size:
        return [block]
    return [
        Block(block.row + start, block.column, block.matrix[start : start + size])
        for start in _starts(len(block.matrix), size)
    ]


def _matrices(op: Mappable, store: WeightStore) -> tuple[list[np.ndarray], int, int, int]:
    """Matrices f32 [outputs, inputs of a group] that add up to the layer's, all its inputs, its groups, and how many
    inputs share a scale (0: all).
    """
    if isinstance(op, MatMulOp | ConvOp):
        matrix, group = weight_matrix(op, store), op.group.value.data if isinstance(op, ConvOp) else 1
        return [matrix], matrix.shape[1] * group, group, 0
    trits, scales = weight_arrays(defining_weight(op.weight), store)
    size = op.trits.group_size
    spread = scales[:, :, np.arange(trits.shape[2]) // size]
    group = op.group_count if isinstance(op, TernaryConvOp) else 1
    sections = size if scales.shape[2] > 1 else 0
    return list(trits.astype(np.float32) * spread), trits.shape[2] * group, group, sections


def inputs_of(op: Mappable, rewriter: PatternRewriter) -> SSAValue:
    """The layer's inputs as vectors, f32 […, inputs]."""
    match op:
        case MatMulOp():
            return op.a
        case LinearOp():
            return _floats(op.q)
        case ConvOp():
            kernel = tuple(d.value for d in dims_of(op.w)[2:])
            return _windows(op.x, kernel, op, rewriter)
        case TernaryConvOp():
            return _windows(_floats(op.q), op.window().kernel, op, rewriter)


def outputs_of(op: Mappable, product_: SSAValue, rewriter: PatternRewriter) -> SSAValue:
    """Vectors of outputs in the shape of the layer's result."""
    if isinstance(op, MatMulOp | LinearOp):
        return product_
    n, p, m = dims_of(product_)
    moved = rewriter.insert(TransposeOp(product_, [0, 2, 1], tensor_type(f32, [n, m, p])))
    return rewriter.insert(ReshapeOp(moved.result, op.result.type)).result


def _floats(q: SSAValue) -> SSAValue:
    owner = q.owner
    assert isinstance(owner, QuantizeOp)
    return owner.x


def _windows(x: SSAValue, kernel: tuple[int, ...], op: ConvOp | TernaryConvOp, rewriter: PatternRewriter) -> SSAValue:
    """The windows of x[N, C, …] as vectors [N, P, C·kernel], channel-major as weights are."""
    rank = len(kernel)
    pads, strides, dilations = (tuple(a.get_values()) for a in (op.pads, op.strides, op.dilations))
    dims = list(dims_of(x))
    if any(pads):
        begins, ends = (0, 0, *pads[:rank]), (0, 0, *pads[rank:])
        dims = [d + b + e for d, b, e in zip(dims, begins, ends, strict=True)]
        x = rewriter.insert(PadOp(x, (*begins, *ends), tensor_type(f32, dims))).result
    spatial = dims_of(op.result)[2:]
    positions = product(spatial)
    pieces: list[SSAValue] = []
    for offset in np.ndindex(*kernel):
        starts = [Dim.of(0), Dim.of(0), *(Dim.of(o * d) for o, d in zip(offset, dilations))]
        sizes = [*dims[:2], *spatial]
        piece = rewriter.insert(SliceOp(x, starts, [1, 1, *strides], tensor_type(f32, sizes))).result
        flat = tensor_type(f32, [dims[0], dims[1], 1, positions])
        pieces.append(rewriter.insert(ReshapeOp(piece, flat)).result)
    size = prod(kernel)
    together = pieces[0]
    if size > 1:
        type_ = tensor_type(f32, [dims[0], dims[1], size, positions])
        together = rewriter.insert(ConcatOp(pieces, 2, type_)).result
    lines = rewriter.insert(ReshapeOp(together, tensor_type(f32, [dims[0], dims[1] * size, positions]))).result
    result = tensor_type(f32, [dims[0], positions, dims[1] * size])
    return rewriter.insert(TransposeOp(lines, [0, 2, 1], result)).result


def _reason_of_constant(value: SSAValue, store: WeightStore) -> str:
    if element_of(value) != f32:
        return f"its weights are {element_of(value)}"
    array = constant_value(value, store)
    assert array is not None
    if array.size == 0:
        return "its weights are empty"
    if not np.isfinite(array).all():
        constant = value.owner
        name = constant.entry.data if isinstance(constant, ConstantOp) and constant.entry is not None else "a constant"
        raise Error(
            "NEUC-E650",
            f"weights {name!r} hold NaN or infinity, which no device can",
            hint="repair the model; a diverged training leaves such weights",
        )
    return ""


def balanced(size: int, most: int) -> Sequence[tuple[int, int]]:
    """(first, count) of as few parts as possible of at most `most`, as equal as possible, the larger ones first."""
    parts = -(-size // most)
    base, larger = divmod(size, parts)
    counts = [base + 1] * larger + [base] * (parts - larger)
    firsts = np.cumsum([0, *counts[:-1]]).tolist()
    return list(zip(firsts, counts))

"""Building what `analysis/activation_codes.py` found: an int8 tensor of codes, and a tensor of their scales.

The model's own operations are copied or read, in their order; the only new ones are the conversion to int8 and products
of scales. A whole quantiser that `ternary.quantize` matches to the bit becomes that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from xdsl.dialects import arith
from xdsl.dialects.builtin import UnitAttr, f32, i8
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.pattern_rewriter import PatternRewriter

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense import BroadcastOp, MapOp, ReshapeOp, TransposeOp, YieldOp
from neuc.dialects.dims import Dim
from neuc.dialects.store import dims_of, element_of, make_constant, tensor_type
from neuc.dialects.ternary import QuantizeOp
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.absmax_quantizer import AbsMaxQuantizer, absmax_quantizer
from neuc.passes.analysis.activation_codes import Codes, Frame
from neuc.passes.analysis.scalar_points import Movement, Point, slice_of
from neuc.passes.analysis.ternary_layers import REPLAYED
from neuc.passes.scalar_builder import Scalar, cast

Body = Callable[..., Scalar]


@dataclass
class CodeBuilder:
    """Builds codes and scales once for all layers of a block that read the same activations.

    Attributes:
        store: where constants go.
        replaced: results of layers that became others since codes were found, and what they became: scales may be one.
    """

    store: WeightStore
    replaced: dict[SSAValue, SSAValue] = field(default_factory=dict)
    _built: dict[tuple[SSAValue, int], tuple[SSAValue, SSAValue]] = field(default_factory=dict)
    _quantized: dict[tuple[SSAValue, int, bool], tuple[SSAValue, SSAValue]] = field(default_factory=dict)

    def build(self, codes: Codes, x: SSAValue, shared: int, rewriter: PatternRewriter) -> tuple[SSAValue, SSAValue]:
        """int8 codes in the shape of `x`, and f32 scales in the shape of its axes before the last `shared`.

        Args:
            codes: what was found about `x`.
            x: the activations of a layer.
            shared: how many of the last axes share a scale.
            rewriter: at a layer that reads `x`; layers before it in the block come before it here.
        """
        if (x, shared) not in self._built:
            building = _Building(codes, self.store, self.replaced, rewriter)
            whole = absmax_quantizer(codes, self.store)
            self._built[x, shared] = building.run() if whole is None else self._whole(whole, shared, building)
        return self._built[x, shared]

    def _whole(self, found: AbsMaxQuantizer, shared: int, building: _Building) -> tuple[SSAValue, SSAValue]:
        """`ternary.quantize`, once for all that quantise the same value alike."""
        key = (found.x.value, shared, found.reciprocal)
        if key not in self._quantized:
            quantize = QuantizeOp(building.tensor(found.x), shared, reciprocal=found.reciprocal)
            quantize.attributes[REPLAYED] = UnitAttr()
            building.add(quantize)
            self._quantized[key] = quantize.q, quantize.s
        return self._quantized[key]


@dataclass
class _Building:
    """One use of a `CodeBuilder`."""

    codes: Codes
    store: WeightStore
    replaced: Mapping[SSAValue, SSAValue]
    rewriter: PatternRewriter

    def run(self) -> tuple[SSAValue, SSAValue]:
        """Codes and scales, frame by frame."""
        q, s = self._integers(), None
        frames = self.codes.frames
        for frame, following in pairwise(frames):
            assert frame.movement is not None
            s = self._scaled(s, frame)
            q = self._moved(frame.movement, q)
            s = None if s is None else self._moved_scale(frame.movement, self._settled(s, frame), following)
        s = self._scaled(s, frames[-1])
        one = np.array(1, np.float32)
        s = self.add(make_constant("unit_scale", one, self.store)) if s is None else s
        return q, self._settled(s, frames[-1])

    def add(self, op: Operation) -> SSAValue:
        """Insert `op` before the layer; its result."""
        self.rewriter.insert(op)
        return op.results[0]

    def _integers(self) -> SSAValue:
        """The codes as int8, in the shape they are computed in."""
        point, offset = self.codes.point, self.codes.offset
        if offset == 0 and isinstance(point.op, arith.SIToFPOp) and _element(point.operands()[0]) == i8:
            point = point.operands()[0]
        tensor = self.tensor(point)
        if element_of(tensor) == i8 and offset == 0:
            return tensor

        def body(x: Scalar) -> Scalar:
            x = _cast(x, f32)
            return _cast(x - float(offset) if offset else x, i8)

        return self._map([tensor], body)

    def _scaled(self, s: SSAValue | None, frame: Frame) -> SSAValue | None:
        """The scale so far times the factors of a frame; None if there is none yet."""
        factors = [self.tensor(factor.point) for factor in frame.factors]
        if not factors or (s is None and len(factors) == 1 and not frame.factors[0].divides):
            return factors[0] if factors else s
        if s is not None:  # [lead] against […lead, 1 …]
            s = self._reshaped(s, (*dims_of(s), *[Dim.of(1)] * frame.shared)) if dims_of(s) else s

        def body(*values: Scalar) -> Scalar:
            product = None if s is None else values[0]
            for value, factor in zip(values[0 if s is None else 1 :], frame.factors):
                if product is None:
                    product = 1.0 / value if factor.divides else value
                else:
                    product = product / value if factor.divides else product * value
            assert product is not None
            return product

        return self._map([*([] if s is None else [s]), *factors], body)

    def _settled(self, s: SSAValue, frame: Frame) -> SSAValue:
        """The scale in the shape of the axes that do not share it."""
        lead = frame.lead
        if dims_of(s) == lead:
            return s
        full = (*lead, *[Dim.of(1)] * frame.shared)
        if not lead or dims_of(s) == full:
            return self._reshaped(s, lead)
        s = self._reshaped(s, ()) if all(dim == 1 for dim in dims_of(s)) else s
        target = full if dims_of(s) else lead
        return self._reshaped(self.add(BroadcastOp(s, tensor_type(f32, target))), lead)

    def _reshaped(self, x: SSAValue, dims: Sequence[Dim]) -> SSAValue:
        same = dims_of(x) == tuple(dims)
        return x if same else self.add(ReshapeOp(x, tensor_type(element_of(x), dims)))

    def _moved(self, movement: Movement, q: SSAValue) -> SSAValue:
        """The codes after a movement of elements."""
        type_ = tensor_type(i8, dims_of(movement.results[0]))
        operands = [q, *movement.operands[1:]]
        return self.add(type(movement).create(operands=operands, result_types=[type_], properties=movement.properties))

    def _moved_scale(self, movement: Movement, s: SSAValue, following: Frame) -> SSAValue:
        """The scales after it: one number stays what it is, axes before the last follow their elements."""
        if not dims_of(s):
            return s
        if not isinstance(movement, TransposeOp):
            return self._reshaped(s, following.lead)
        perm = [int(p) for p in movement.perm.get_values()][: len(dims_of(s))]
        return self.add(TransposeOp(s, perm, tensor_type(f32, following.lead)))

    def tensor(self, point: Point) -> SSAValue:
        """A tensor of what a point is: that of its map if it gives just this, else of a map of its own."""
        if point.map is None:
            return self.replaced.get(point.value, point.value)
        last = point.map.body.block.last_op
        dims = point.dims()
        if isinstance(last, YieldOp) and last.value is point.value and dims_of(point.map.result) == dims:
            return point.map.result
        assert dims is not None
        return self.add(_slice_of(point.map, point.value))

    def _map(self, inputs: Sequence[SSAValue], body: Body) -> SSAValue:
        block = Block(arg_types=[element_of(v) for v in inputs])
        result = body(*(Scalar(arg, block) for arg in block.args))
        block.add_op(YieldOp(result.value))
        dims = shapes.broadcast([dims_of(v) for v in inputs])
        return self.add(MapOp(inputs, tensor_type(result.type, dims), Region(block)))


def _slice_of(source: MapOp, value: SSAValue) -> MapOp:
    """A map that gives what `value`, a scalar in the body of `source`, is."""
    indices, ops = slice_of(source, value)
    inputs = [source.inputs[i] for i in indices]
    block = Block(arg_types=[source.body.block.args[i].type for i in indices])
    values: dict[SSAValue, SSAValue] = {source.body.block.args[i]: arg for i, arg in zip(indices, block.args)}
    for op in ops:
        block.add_op(op.clone(value_mapper=values))
    block.add_op(YieldOp(values[value]))
    dims = shapes.broadcast([dims_of(v) for v in inputs])
    return MapOp(inputs, tensor_type(value.type, dims), Region(block))


def _element(point: Point) -> Attribute:
    return element_of(point.value) if point.map is None else point.value.type


def _cast(x: Scalar, to: Attribute) -> Scalar:
    found = cast(x, to)
    assert found is not None, f"{x.type} to {to}"
    return found

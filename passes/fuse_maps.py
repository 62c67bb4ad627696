"""`fuse-maps`: chains of element-wise maps become one map, and one-element constants move into its body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import AnyFloat, FloatAttr, IntegerAttr, IntegerType, ModuleOp, Signedness
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from neuc.dialects.context import store_of
from neuc.dialects.dense import MapOp, YieldOp
from neuc.dialects.locations import fuse_locations
from neuc.dialects.store import constant_value, dims_of, element_of, num_elements
from neuc.dialects.weight_store import WeightStore
from neuc.passes.rewriting import rewrite

MAX_OPERANDS = 8
"""Operands of a fused map: each is a pointer and strides in the kernel, which has so many registers."""

MAX_BODY = 64


@dataclass(frozen=True)
class FuseMaps(ModulePass):
    """Merge element-wise maps.

    1. An operand with one element and a constant value becomes an `arith.constant` of the body, unless the result's
       shape depends on it.
    2. A map whose only user is another map of as many elements becomes part of that map's body.
    3. Equal operands of a map become one.

    ``%a = dense.map(%x) {exp}; %b = dense.map(%a, %y) {addf}`` becomes ``%b = dense.map(%x, %y) {exp; addf}``.
    Locations of merged maps are fused.
    """

    name = "fuse-maps"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Merge the maps of the module."""
        rewrite(op, [InlineScalarConstant(store_of(ctx)), MergeEqualOperands(), FuseProducerMap()])


@dataclass(frozen=True)
class InlineScalarConstant(RewritePattern):
    """Move one-element constants into the body."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MapOp, rewriter: PatternRewriter) -> None:
        """Inline every such operand but the last one left."""
        rank = len(dims_of(op.result))
        kept: list[SSAValue] = []
        inlined: dict[int, FloatAttr[AnyFloat] | IntegerAttr[IntegerType]] = {}
        for index, operand in enumerate(op.inputs):
            value = _scalar_attribute(operand, self.store)
            if value is None or len(dims_of(operand)) > rank:
                kept.append(operand)
            else:
                inlined[index] = value
        shapes = [dims_of(v) for v in kept]
        if not inlined or not any(shape == dims_of(op.result) for shape in shapes):
            # Without an operand of the result's full shape the constants may be what gives it its rank.
            return
        block = Block(arg_types=[element_of(v) for v in kept])
        arguments = iter(block.args)
        values: list[SSAValue] = []
        for index in range(len(op.inputs)):
            if index in inlined:
                constant = arith.ConstantOp(inlined[index])
                block.add_op(constant)
                values.append(constant.result)
            else:
                values.append(next(arguments))
        block.add_op(YieldOp(_copy_body(op, values, block)))
        rewriter.replace(op, MapOp(kept, op.result.type, Region(block)))


class MergeEqualOperands(RewritePattern):
    """Let equal operands share one body argument."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MapOp, rewriter: PatternRewriter) -> None:
        """Rebuild the map over its distinct operands."""
        distinct = list(dict.fromkeys(op.inputs))
        if len(distinct) == len(op.inputs):
            return
        block = Block(arg_types=[element_of(v) for v in distinct])
        values = [block.args[distinct.index(v)] for v in op.inputs]
        block.add_op(YieldOp(_copy_body(op, values, block)))
        rewriter.replace(op, MapOp(distinct, op.result.type, Region(block)))


class FuseProducerMap(RewritePattern):
    """Merge a map that only this map uses into this map."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MapOp, rewriter: PatternRewriter) -> None:
        """Merge the first such producer."""
        producer = next((p for p in (v.owner for v in op.inputs) if _fits(p, op)), None)
        if not isinstance(producer, MapOp):
            return
        operands = list(dict.fromkeys([*producer.inputs, *(v for v in op.inputs if v is not producer.result)]))
        if len(operands) > MAX_OPERANDS:
            return
        block = Block(arg_types=[element_of(v) for v in operands])
        argument = dict(zip(operands, block.args))
        inner = _copy_body(producer, [argument[v] for v in producer.inputs], block)
        outer = [inner if v is producer.result else argument[v] for v in op.inputs]
        block.add_op(YieldOp(_copy_body(op, outer, block)))
        fused = MapOp(operands, op.result.type, Region(block))
        fused.location = fuse_locations(producer, op)
        rewriter.replace(op, fused)
        rewriter.erase(producer)


def _fits(producer: Operation | Block, consumer: MapOp) -> bool:
    if not isinstance(producer, MapOp):
        return False
    if any(use.operation is not consumer for use in producer.result.uses):
        return False
    same_work = num_elements(producer.result) == num_elements(consumer.result)
    size = len(producer.body.block.ops) + len(consumer.body.block.ops)
    return same_work and len(dims_of(producer.result)) <= len(dims_of(consumer.result)) and size <= MAX_BODY


def _copy_body(op: MapOp, values: Sequence[SSAValue], block: Block) -> SSAValue:
    """Append a copy of `op`'s body with its arguments replaced by `values`; the value it yields."""
    mapping: dict[SSAValue, SSAValue] = dict(zip(op.body.block.args, values, strict=True))
    for inner in op.body.block.ops:
        if isinstance(inner, YieldOp):
            return mapping[inner.value]
        clone = inner.clone(value_mapper=mapping)
        block.add_op(clone)
    raise AssertionError("a verified body ends with dense.yield")


def _scalar_attribute(value: SSAValue, store: WeightStore) -> FloatAttr[AnyFloat] | IntegerAttr[IntegerType] | None:
    if num_elements(value) != 1:
        return None
    array = constant_value(value, store)
    if array is None:
        return None
    element = element_of(value)
    number = array.reshape(-1)[0]
    if isinstance(element, IntegerType) and element.signedness.data is Signedness.SIGNLESS:
        return IntegerAttr(int(number), element)
    if isinstance(element, AnyFloat) and bool(np.isfinite(number)):
        return FloatAttr(float(number), element)
    return None

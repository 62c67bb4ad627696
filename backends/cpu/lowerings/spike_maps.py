"""Element-wise operations that lowerings of spikes make on the way, written as `dense.map` and lowered as such."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.dialects.builtin import i8
from xdsl.ir import Attribute, Block, SSAValue

from neuc.backends.cpu.lowering import SegmentLowering
from neuc.dialects import dense
from neuc.dialects.dims import Dim
from neuc.dialects.spike_types import EventType
from neuc.dialects.store import dims_of, element_of, tensor_type
from neuc.errors import InternalError
from neuc.passes.scalar_builder import Scalar, cast

Body = Callable[[Sequence[Scalar]], Scalar]


def numbers(value: SSAValue, s: SegmentLowering) -> SSAValue:
    """A value whose elements can be computed with: events as the int8 they are in memory, others as they are."""
    if not isinstance(element_of(value), EventType):
        return value
    return as_type(value, i8, dims_of(value), s)


def as_type(value: SSAValue, element: Attribute, dims: Sequence[Dim], s: SegmentLowering) -> SSAValue:
    """The bytes of a value under another type of the same size."""
    return value_of(value, tensor_type(element, dims), s)


def value_of(source: SSAValue, type_: Attribute, s: SegmentLowering) -> SSAValue:
    """A value of this type with the bytes of a buffer or of another value."""
    value = Block(arg_types=[type_]).args[0]
    s.alias(value, source)
    return value


def mapped(
    s: SegmentLowering, inputs: Sequence[SSAValue], element: Attribute, dims: Sequence[Dim], body: Body
) -> SSAValue:
    """Launch ``result[i] = body(inputs at i)``; events go in as int8."""
    op = dense.MapOp([numbers(value, s) for value in inputs], tensor_type(element, dims))
    block = op.body.block
    result = body([Scalar(argument, block) for argument in block.args])
    block.add_op(dense.YieldOp(result.value))
    s.lower(op)
    return op.result


def converted(value: SSAValue, element: Attribute, s: SegmentLowering) -> SSAValue:
    """The value with elements of another type; itself if it has them."""
    if element_of(value) == element:
        return value
    return mapped(s, [value], element, dims_of(value), lambda x: casted(x[0], element))


def casted(x: Scalar, element: Attribute) -> Scalar:
    """`x` as another type of number."""
    made = cast(x, element)
    if made is None:
        raise InternalError(f"no cast from {x.type} to {element}")
    return made

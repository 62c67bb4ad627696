"""Encoders, decoders and delays of the `spike` dialect: numbers to spikes, spikes to numbers, spikes to later.

Constant-current coding needs no operation: it is the number itself, each step. Meaning: `interp/spike_coding.py`.
"""

from __future__ import annotations

from xdsl.dialects.builtin import IntegerAttr, TensorType, f32, i32, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense_attrs import DenseOp, int_attr
from neuc.dialects.spike_types import BINARY, SIGNED, event_of
from neuc.dialects.store import dims_of, tensor_type

_I64 = IntegerAttr.constr(i64)


@irdl_op_definition
class SilenceOp(DenseOp):
    """No spikes: the zeros that states of events begin with."""

    name = "spike.silence"
    events = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, result_type: Attribute) -> None:
        super().__init__(result_types=[result_type])

    def verify_(self) -> None:
        if event_of(self.events) is None:
            raise VerifyException(f"result is {self.events.type}, should hold events")
        shapes.dims(self.events)


@irdl_op_definition
class EncodeRateOp(DenseOp):
    """events = [u < x] with u uniform in [0, 1): spikes at rate x.

    u of element i (row-major) in step t is the upper 24 bits of word i mod 4 of Philox4x32-10 with the key `seed` (low
    word first) and the counter (i div 4 low, i div 4 high, t low, t high): the same spikes everywhere (Salmon et al.,
    "Parallel random numbers: as easy as 1, 2, 3", 2011).
    """

    name = "spike.encode_rate"
    x = operand_def(TensorType)
    step = operand_def(TensorType)
    seed = prop_def(_I64, default_value=int_attr(0))
    events = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, x: SSAValue, step: SSAValue, *, seed: int = 0) -> None:
        super().__init__(
            operands=[x, step],
            result_types=[tensor_type(BINARY, dims_of(x))],
            properties={"seed": int_attr(seed)},
        )

    def verify_(self) -> None:
        shapes.check_element("x", self.x, f32)
        shapes.check("step", self.step, (), i64)
        shapes.check("events", self.events, shapes.dims(self.x), BINARY)


@irdl_op_definition
class EncodeLatencyOp(DenseOp):
    """One spike in step round((1 − min(x, 1))·(steps − 1)), halves up: the larger x > 0, the sooner; none for x ≤ 0."""

    name = "spike.encode_latency"
    x = operand_def(TensorType)
    step = operand_def(TensorType)
    steps = prop_def(_I64)
    events = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, x: SSAValue, step: SSAValue, *, steps: int) -> None:
        super().__init__(
            operands=[x, step],
            result_types=[tensor_type(BINARY, dims_of(x))],
            properties={"steps": int_attr(steps)},
        )

    def verify_(self) -> None:
        shapes.check_element("x", self.x, f32)
        shapes.check("step", self.step, (), i64)
        shapes.check("events", self.events, shapes.dims(self.x), BINARY)
        if self.steps.value.data < 1:
            raise VerifyException(f"steps = {self.steps.value.data}, should be at least 1")


@irdl_op_definition
class EncodeDeltaOp(DenseOp):
    """Delta modulation: event +1 where x − reference ≥ threshold, −1 where it is ≤ −threshold, and the reference moves
    by threshold·event: how an event camera sees brightness.
    """

    name = "spike.encode_delta"
    x = operand_def(TensorType)
    reference = operand_def(TensorType)
    threshold = operand_def(TensorType)
    events = result_def(TensorType)
    next_reference = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, x: SSAValue, reference: SSAValue, threshold: SSAValue) -> None:
        super().__init__(
            operands=[x, reference, threshold],
            result_types=[tensor_type(SIGNED, dims_of(x)), reference.type],
        )

    def verify_(self) -> None:
        dims = shapes.dims(self.x)
        shapes.check_element("x", self.x, f32)
        shapes.check("reference", self.reference, dims, f32)
        shapes.check_broadcastable("threshold", shapes.dims(self.threshold), dims)
        shapes.check_element("threshold", self.threshold, f32)
        shapes.check("events", self.events, dims, SIGNED)
        shapes.check("next reference", self.next_reference, dims, f32)


@irdl_op_definition
class AccumulateOp(DenseOp):
    """next = total + x, from step `start` on: spike counts and summed currents, and the delayed read-out of either.

    Without the operand `step` every step counts, and there is no `start`. x holds events, f32 or i32; total f32 or
    i32, and i32 only of events and i32.
    """

    name = "spike.accumulate"
    x = operand_def(TensorType)
    total = operand_def(TensorType)
    step = opt_operand_def(TensorType)
    start = prop_def(_I64, default_value=int_attr(0))
    next_total = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, x: SSAValue, total: SSAValue, step: SSAValue | None = None, *, start: int = 0) -> None:
        super().__init__(operands=[x, total, step], result_types=[total.type], properties={"start": int_attr(start)})

    def verify_(self) -> None:
        dims, held, element = shapes.dims(self.x), shapes.element(self.total), shapes.element(self.x)
        if event_of(self.x) is None and element not in (f32, i32):
            raise VerifyException(f"x holds {element}, should hold events, f32 or i32")
        if held not in (f32, i32) or (held == i32 and element == f32):
            raise VerifyException(f"total holds {held} for x of {element}")
        shapes.check("total", self.total, dims)
        shapes.check("next total", self.next_total, dims, held)
        if self.step is not None:
            shapes.check("step", self.step, (), i64)
        elif self.start.value.data:
            raise VerifyException(f"start = {self.start.value.data} needs the operand step")


@irdl_op_definition
class FirstSpikeOp(DenseOp):
    """next = min(first, step) where there is an event, else first: begin it with more than there are steps."""

    name = "spike.first_spike"
    events = operand_def(TensorType)
    first = operand_def(TensorType)
    step = operand_def(TensorType)
    next_first = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, events: SSAValue, first: SSAValue, step: SSAValue) -> None:
        super().__init__(operands=[events, first, step], result_types=[first.type])

    def verify_(self) -> None:
        dims = shapes.dims(self.events)
        if event_of(self.events) is None:
            raise VerifyException(f"events hold {shapes.element(self.events)}")
        shapes.check("first", self.first, dims, i32)
        shapes.check("step", self.step, (), i64)
        shapes.check("next first", self.next_first, dims, i32)


@irdl_op_definition
class DelayOp(DenseOp):
    """y = what x was d steps ago: ring[0] of ring[d, …]; next ring = ring[1:] with x behind it. Events or numbers."""

    name = "spike.delay"
    x = operand_def(TensorType)
    ring = operand_def(TensorType)
    y = result_def(TensorType)
    next_ring = result_def(TensorType)
    traits = traits_def(Pure())

    def __init__(self, x: SSAValue, ring: SSAValue) -> None:
        super().__init__(operands=[x, ring], result_types=[x.type, ring.type])

    def verify_(self) -> None:
        dims, element, ring = shapes.dims(self.x), shapes.element(self.x), shapes.dims(self.ring)
        if not ring or not ring[0].is_static or ring[0].value < 1:
            raise VerifyException(f"ring has shape {shapes.shape_text(ring)}, should be [d, …] with d ≥ 1")
        shapes.check("ring", self.ring, [ring[0], *dims], element)
        shapes.check("y", self.y, dims, element)
        shapes.check("next ring", self.next_ring, ring, element)


CODERS = (
    SilenceOp,
    EncodeRateOp,
    EncodeLatencyOp,
    EncodeDeltaOp,
    AccumulateOp,
    FirstSpikeOp,
    DelayOp,
)

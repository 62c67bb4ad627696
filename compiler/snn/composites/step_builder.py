"""Writing `spike` and `dense` operations one by one, and a time loop whose states come up while its step is written.

What blocks consist of is in the sibling files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects.builtin import DenseArrayBase, f32, i64
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from neuc.dialects import dense_shapes as shapes
from neuc.dialects import spike
from neuc.dialects.dense import BroadcastOp, MapOp, ReduceOp, ReshapeOp, SliceOp, TransposeOp, YieldOp
from neuc.dialects.dense_attrs import ReduceKind, ReduceKindAttr
from neuc.dialects.dims import DimLike
from neuc.dialects.store import dims_of, element_of, make_constant, tensor_type
from neuc.dialects.weight_store import WeightStore
from neuc.passes.scalar_builder import Scalar


@dataclass
class Ops:
    """Appends operations to a block.

    Attributes:
        block: where to.
        store: where constants go.
    """

    block: Block
    store: WeightStore

    def add(self, op: Operation) -> SSAValue:
        """Append `op`; its first result."""
        self.block.add_op(op)
        return op.results[0]

    def constant(self, name: str, array: np.ndarray | float) -> SSAValue:
        """A constant; numbers are f32 scalars."""
        return self.add(make_constant(name, np.asarray(array, getattr(array, "dtype", np.float32)), self.store))

    def filled(self, value: float, like: SSAValue) -> SSAValue:
        """f32 of one value, in the shape of another."""
        return self.add(BroadcastOp(self.constant("fill", value), tensor_type(f32, dims_of(like))))

    def reshape(self, x: SSAValue, dims: Sequence[DimLike]) -> SSAValue:
        """The elements of x in another shape."""
        return self.add(ReshapeOp(x, tensor_type(element_of(x), dims)))

    def transpose(self, x: SSAValue, perm: Sequence[int]) -> SSAValue:
        """The tensor x with its axes in another order."""
        return self.add(TransposeOp(x, perm, tensor_type(element_of(x), [dims_of(x)[i] for i in perm])))

    def broadcast(self, x: SSAValue, dims: Sequence[DimLike]) -> SSAValue:
        """The tensor x repeated."""
        return self.add(BroadcastOp(x, tensor_type(element_of(x), dims)))

    def columns(self, x: SSAValue, begin: int, end: int) -> SSAValue:
        """x[…, begin:end]."""
        *leading, _ = dims_of(x)
        starts: list[DimLike] = [*(0 for _ in leading), begin]
        return self.add(SliceOp(x, starts, [1] * len(starts), tensor_type(element_of(x), [*leading, end - begin])))

    def reduce(self, kind: ReduceKind, x: SSAValue, *axes: int) -> SSAValue:
        """The tensor x reduced over `axes`, which are gone then."""
        kept = [dim for i, dim in enumerate(dims_of(x)) if i not in axes]
        properties: dict[str, Attribute | None] = {
            "kind": ReduceKindAttr(kind),
            "axes": DenseArrayBase.from_list(i64, axes),
        }
        return self.add(ReduceOp.build(operands=[x], result_types=[tensor_type(f32, kept)], properties=properties))

    def map(self, body: Callable[..., Scalar], *xs: SSAValue) -> SSAValue:
        """`dense.map` whose body is a Python expression of one scalar for each tensor; shapes broadcast."""
        dims = shapes.broadcast([dims_of(x) for x in xs])
        op = MapOp(xs, tensor_type(f32, dims))
        inner = op.body.block
        result = body(*(Scalar(arg, inner) for arg in inner.args))
        inner.add_op(YieldOp(result.value))
        return self.add(op)

    def sum(self, *xs: SSAValue) -> SSAValue:
        """The sum of f32 tensors whose shapes broadcast."""
        return self.map(_plus, *xs)

    def linear(self, x: SSAValue, name: str, weight: np.ndarray, bias: np.ndarray | None = None) -> SSAValue:
        """`spike.linear` of f32 weights [N, K]; x holds events or numbers."""
        w = self.constant(f"{name}.weight", weight.astype(np.float32))
        b = None if bias is None else self.constant(f"{name}.bias", bias.astype(np.float32))
        return self.add(spike.LinearOp(x, w, b))


def _plus(first: Scalar, *others: Scalar) -> Scalar:
    for other in others:
        first = first + other
    return first


@dataclass
class Step(Ops):
    """The step of a `spike.loop` while it is being written; `close` makes the loop.

    Attributes:
        outer: what the loop stands in.
        scanned: tensors whose first axis is time.
    """

    outer: Ops
    scanned: Sequence[SSAValue] = ()
    _initial: list[SSAValue] = field(default_factory=list[SSAValue])
    _next: dict[SSAValue, SSAValue] = field(default_factory=dict["SSAValue", "SSAValue"])

    @staticmethod
    def of(outer: Ops, scanned: Sequence[SSAValue] = ()) -> Step:
        """An empty step of a loop in `outer`."""
        slices = [tensor_type(element_of(value), dims_of(value)[1:]) for value in scanned]
        return Step(Block(arg_types=[spike.STEP_TYPE, *slices]), outer.store, outer, scanned)

    def constant(self, name: str, array: np.ndarray | float) -> SSAValue:
        """A constant, which stands outside the loop."""
        return self.outer.constant(name, array)

    def filled(self, value: float, like: SSAValue) -> SSAValue:
        """As of `Ops`, outside the loop."""
        return self.outer.filled(value, like)

    @property
    def slices(self) -> Sequence[SSAValue]:
        """What this step sees of the scanned tensors."""
        return self.block.args[1 : 1 + len(self.scanned)]

    def state(self, initial: SSAValue) -> SSAValue:
        """A state that begins as a value from outside; `keep` says how it goes on."""
        self._initial.append(initial)
        return self.block.insert_arg(initial.type, len(self.block.args))

    def zero_state(self, dims: Sequence[DimLike]) -> SSAValue:
        """A state of f32 zeros."""
        zero = self.outer.constant("zero", 0.0)
        return self.state(self.outer.broadcast(zero, dims))

    def keep(self, state: SSAValue, value: SSAValue) -> None:
        """`value` is what `state` is in the next step."""
        self._next[state] = value

    def lif(self, current: SSAValue, decay: float, threshold: float = 1.0) -> SSAValue:
        """Events of leaky integrate-and-fire neurons with soft reset, whose potentials begin as 0."""
        potential = self.zero_state(dims_of(current))
        parameters = [self.constant("decay", decay), self.constant("threshold", threshold)]
        op = spike.LifOp(current, [potential], parameters)
        events = self.add(op)
        self.keep(potential, op.next_potential)
        return events

    def close(self, outputs: Sequence[SSAValue], steps: int) -> spike.LoopOp:
        """End the step with its outputs and append the loop to `outer`."""
        states = self.block.args[1 + len(self.scanned) :]
        self.block.add_op(spike.YieldOp(outputs, [self._next[state] for state in states]))
        types = [value.type for value in outputs]
        loop = spike.LoopOp(self.scanned, self._initial, steps, types, Region(self.block))
        self.outer.block.add_op(loop)
        return loop

    def final(self, loop: spike.LoopOp, state: SSAValue) -> SSAValue:
        """What `state` is after the last step."""
        states: list[SSAValue] = list(self.block.args[1 + len(self.scanned) :])
        return loop.final[states.index(state)]

"""The pass `unroll-lstm`: recurrent layers become matrix products and maps, unrolled or in a loop over time.

Machines that multiply by constant matrices, such as crossbars, can then do the products of a recurrent layer, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter

from neuc.dialects.context import store_of
from neuc.dialects.dense import BroadcastOp, ConcatOp, LstmOp, MatMulOp, ReshapeOp, SliceOp
from neuc.dialects.dense_attrs import Direction
from neuc.dialects.dims import Dim
from neuc.dialects.locations import node_names
from neuc.dialects.spike_time import LoopOp
from neuc.dialects.spike_time import YieldOp as TimeYieldOp
from neuc.dialects.store import ConstantOp, constant_value, dims_of, make_constant, tensor_type
from neuc.dialects.weight_store import WeightStore
from neuc.passes.map_building import map_of
from neuc.passes.scalar_builder import Scalar, sigmoid, tanh

MAX_STEPS = 64
"""Unless told otherwise."""
MOST_STEPS = 1024
"""Each step is some ten operations, and hundredths of a second of compilation."""


@dataclass(frozen=True)
class UnrollLstm(ModulePass):
    """Replace each `dense.lstm` with constant weights by what it computes.

    1. The inputs of all steps are one product with W; each step is one with R, of the state before, and a few maps.
    2. At most `steps` steps follow one another; more of them, and a number that only run time knows, are a `spike.loop`
       over time. Backwards, the loop goes over reversed inputs.
    3. Layers whose weights are computed stay as they are.

    ``%y, %h, %c = dense.lstm(%x, %w, %r)`` over two steps becomes ``%f = dense.matmul(%x, %W) {transpose_b}``, slices
    of it, and for each ``dense.matmul(%h, %R)`` and maps for gates and cells. Over T steps:
    ``%y, %h, %c = spike.loop scan(%f) init(%h0, %c0) … steps "T" { ^step(%t, %f_t, %h, %c): … }``.

    Options:
        steps: most steps that are not a loop.
    """

    name = "unroll-lstm"
    steps: int = MAX_STEPS

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        store = store_of(ctx)
        for inner in list(op.walk()):
            if isinstance(inner, LstmOp) and _fits(inner):
                _Unrolled(inner, store, self.steps).replace()


def _fits(op: LstmOp) -> bool:
    constant = all(isinstance(value.owner, ConstantOp) for value in (op.w, op.r, op.bias) if value is not None)
    return constant and dims_of(op.x)[0] != 0


class _Unrolled:
    """One layer on its way."""

    def __init__(self, op: LstmOp, store: WeightStore, most: int) -> None:
        self.op = op
        self.store = store
        self.most = most
        self.block: Block | None = None
        self.rewriter = PatternRewriter(op)
        self.inserted: list[Operation] = []
        self.rewriter.operation_insertion_handler.append(self.inserted.append)
        self.hidden = op.hidden.value.data
        self.steps, self.batch, self.width = dims_of(op.x)

    def replace(self) -> None:
        """Put the unrolled steps in the layer's place."""
        op = self.op
        ways = dims_of(op.w)[0].value
        made = [self._way(way, op.direction.data is Direction.REVERSE or way == 1) for way in range(ways)]
        y = self._joined([outputs for outputs, _, _ in made], 1, op.y)
        h = self._joined([h for _, h, _ in made], 0, op.h)
        c = self._joined([c for _, _, c in made], 0, op.c)
        for new in self.inserted:
            for inner in new.walk():
                inner.location = op.location
        self.rewriter.replace(op, [], [y, h, c])

    def _way(self, way: int, backwards: bool) -> tuple[SSAValue, SSAValue, SSAValue]:
        """One direction: outputs [T, 1, B, H], last h and last c [1, B, H]."""
        gates = 4 * self.hidden
        w, r = (self._constant(name, self._array(value)[way]) for name, value in (("w", self.op.w), ("r", self.op.r)))
        bias = None
        if self.op.bias is not None:
            both = self._array(self.op.bias)[way]
            bias = self._constant("bias", both[:gates] + both[gates:])
        type_ = tensor_type(f32, [self.steps, self.batch, gates])
        fed = self._insert(MatMulOp(self.op.x, w, bias, type_, transpose_b=True))
        h, c = (self._start(value, way) for value in (self.op.h0, self.op.c0))
        run = self._unrolled if self.steps.is_static and self.steps.value <= self.most else self._looped
        y, h, c = run(fed, r, h, c, backwards)
        y = self._flat(y, [self.steps, 1, self.batch, self.hidden])
        last = [1, self.batch, self.hidden]
        return y, self._flat(h, last), self._flat(c, last)

    def _unrolled(
        self, fed: SSAValue, r: SSAValue, h: SSAValue, c: SSAValue, backwards: bool
    ) -> tuple[SSAValue, SSAValue, SSAValue]:
        """Outputs [T, B, H] and the last states [B, H]: step after step."""
        outputs: dict[int, SSAValue] = {}
        order = range(self.steps.value)
        for t in reversed(order) if backwards else order:
            now = self._flat(self._part(fed, 0, t, 1), [self.batch, 4 * self.hidden])
            h, c = self._step(now, r, h, c)
            outputs[t] = self._flat(h, [1, self.batch, self.hidden])
        shape = tensor_type(f32, [self.steps, self.batch, self.hidden])
        return self._insert(ConcatOp([outputs[t] for t in order], 0, shape)) if len(order) > 1 else outputs[0], h, c

    def _looped(
        self, fed: SSAValue, r: SSAValue, h: SSAValue, c: SSAValue, backwards: bool
    ) -> tuple[SSAValue, SSAValue, SSAValue]:
        """Outputs [T, B, H] and the last states [B, H]: a loop over time."""
        if backwards:
            fed = self._reversed(fed)
        loop = LoopOp([fed], [h, c], self.steps, [h.type])
        self.block = loop.body.block
        after = self._step(loop.slices[0], r, *loop.states)
        self.block.add_op(TimeYieldOp([after[0]], after))
        self.block = None
        self.rewriter.insert(loop)
        y, h, c = loop.results
        return self._reversed(y) if backwards else y, h, c

    def _step(self, fed: SSAValue, r: SSAValue, h: SSAValue, c: SSAValue) -> tuple[SSAValue, SSAValue]:
        """The states after a step, [B, H], from its inputs' share of the gates [B, 4H] and the states before."""
        recurrent = self._insert(MatMulOp(h, r, None, fed.type, transpose_b=True))
        total = self._insert(map_of([fed, recurrent], lambda a, b: a + b))
        i, o, f, g = (self._part(total, 1, n * self.hidden, self.hidden) for n in range(4))
        c = self._insert(map_of([f, c, i, g], _cell))
        return self._insert(map_of([o, c], lambda gate, cell: sigmoid(gate) * tanh(cell))), c

    def _start(self, value: SSAValue | None, way: int) -> SSAValue:
        """The state before the first step, [B, H]."""
        dims: list[Dim | int] = [self.batch, self.hidden]
        if value is not None:
            return self._flat(self._part(value, 0, way, 1), dims)
        zero = self._constant("zero", np.zeros((1, 1), np.float32))
        return self._insert(BroadcastOp(zero, tensor_type(f32, dims)))

    def _reversed(self, x: SSAValue) -> SSAValue:
        """The same with time running backwards."""
        rest = len(dims_of(x)) - 1
        return self._insert(SliceOp(x, [self.steps - 1, *[0] * rest], [-1, *[1] * rest], x.type))

    def _part(self, x: SSAValue, axis: int, first: int, count: int) -> SSAValue:
        """`count` places of an axis from `first` on."""
        dims = [Dim.of(count) if i == axis else dim for i, dim in enumerate(dims_of(x))]
        starts = [first if i == axis else 0 for i in range(len(dims))]
        return self._insert(SliceOp(x, starts, [1] * len(dims), tensor_type(f32, dims)))

    def _flat(self, x: SSAValue, dims: list[Dim | int]) -> SSAValue:
        return self._insert(ReshapeOp(x, tensor_type(f32, dims)))

    def _joined(self, parts: list[SSAValue], axis: int, as_: SSAValue) -> SSAValue:
        return parts[0] if len(parts) == 1 else self._insert(ConcatOp(parts, axis, as_.type))

    def _array(self, value: SSAValue) -> np.ndarray:
        array = constant_value(value, self.store)
        assert array is not None
        return array

    def _constant(self, what: str, array: np.ndarray) -> SSAValue:
        name = next(iter(node_names(self.op)), "lstm")
        return self._insert(make_constant(f"{name}.{what}", np.ascontiguousarray(array), self.store))

    def _insert(self, op: Operation) -> SSAValue:
        """Put an operation into the loop that is being written, else before the layer."""
        if self.block is not None:
            self.block.add_op(op)
        else:
            self.rewriter.insert(op)
        return op.results[0]


def _cell(forget: Scalar, before: Scalar, enter: Scalar, new: Scalar) -> Scalar:
    return sigmoid(forget) * before + sigmoid(enter) * tanh(new)

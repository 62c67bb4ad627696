"""The pass `unroll-lstm`: recurrent layers over a known number of steps become matrix products and maps.

Machines that multiply by constant matrices, such as crossbars, can then do the products of a recurrent layer, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter

from neuc.dialects.context import store_of
from neuc.dialects.dense import ConcatOp, LstmOp, MatMulOp, ReshapeOp, SliceOp
from neuc.dialects.dense_attrs import Direction
from neuc.dialects.dims import Dim
from neuc.dialects.locations import node_names
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
    """Replace each `dense.lstm` with constant weights and at most `steps` steps by what it computes.

    The inputs of all steps are one product with W; each step is one with R and a few maps. Longer sequences, and
    those of unknown length, stay as they are.

    ``%y, %h, %c = dense.lstm(%x, %w, %r)`` over two steps becomes ``%f = dense.matmul(%x, %W) {transpose_b}``, slices
    of it for each step, ``dense.matmul(%h, %R)`` from the second on, and maps for gates and cells.

    Options:
        steps: most steps.
    """

    name = "unroll-lstm"
    steps: int = MAX_STEPS

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        store = store_of(ctx)
        for inner in list(op.walk()):
            if isinstance(inner, LstmOp) and self._fits(inner):
                _Unrolled(inner, store).replace()

    def _fits(self, op: LstmOp) -> bool:
        steps = dims_of(op.x)[0]
        constant = all(isinstance(value.owner, ConstantOp) for value in (op.w, op.r, op.bias) if value is not None)
        return constant and steps.is_static and 1 <= steps.value <= self.steps


class _Unrolled:
    """One layer on its way."""

    def __init__(self, op: LstmOp, store: WeightStore) -> None:
        self.op = op
        self.store = store
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
            new.location = op.location
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
        outputs: dict[int, SSAValue] = {}
        order = range(self.steps.value)
        for t in reversed(order) if backwards else order:
            total = self._flat(self._part(fed, 0, t, 1), [self.batch, gates])
            if h is not None:
                recurrent = MatMulOp(h, r, None, tensor_type(f32, [self.batch, gates]), transpose_b=True)
                total = self._insert(map_of([total, self._insert(recurrent)], lambda a, b: a + b))
            i, o, f, g = (self._part(total, 1, n * self.hidden, self.hidden) for n in range(4))
            c = self._insert(map_of([i, g], _first_cell) if c is None else map_of([f, c, i, g], _cell))
            h = self._insert(map_of([o, c], lambda gate, cell: sigmoid(gate) * tanh(cell)))
            outputs[t] = self._flat(h, [1, 1, self.batch, self.hidden])
        assert h is not None
        assert c is not None
        shape = tensor_type(f32, [self.steps, 1, self.batch, self.hidden])
        y = self._insert(ConcatOp([outputs[t] for t in order], 0, shape)) if len(order) > 1 else outputs[0]
        last = [1, self.batch, self.hidden]
        return y, self._flat(h, last), self._flat(c, last)

    def _start(self, value: SSAValue | None, way: int) -> SSAValue | None:
        """The state before the first step, [B, H]; None for zeros."""
        if value is None:
            return None
        return self._flat(self._part(value, 0, way, 1), [self.batch, self.hidden])

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
        self.rewriter.insert(op)
        return op.results[0]


def _cell(forget: Scalar, before: Scalar, enter: Scalar, new: Scalar) -> Scalar:
    return sigmoid(forget) * before + sigmoid(enter) * tanh(new)


def _first_cell(enter: Scalar, new: Scalar) -> Scalar:
    return sigmoid(enter) * tanh(new)

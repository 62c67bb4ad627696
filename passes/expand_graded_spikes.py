"""Binary spikes in place of signed and graded ones, for hardware and formats that have no others.

A `spike.multi_threshold` becomes an integrator with a threshold for each level and sign, and weights back from them.
Thresholds are a thermometer code: if level 2^k is reached, all lower ones are, and with the weights 1, 1, 2, 4, … they
add up to 2^k, so networks mean what they did (f32 may round other digits, since what a spike takes off the membrane
arrives with the next current). Every synapse that read the spikes reads the thresholds, one copy for each level.

What it costs stands in the module's notes. `spike.differential` cannot be expanded: its gain changes in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import ModuleOp, i32
from xdsl.ir import BlockArgument, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from neuc.dialects import dense, spike
from neuc.dialects.context import store_of
from neuc.dialects.locations import node_names
from neuc.dialects.store import (
    ConstantOp,
    constant_array,
    dims_of,
    element_of,
    make_constant,
    num_elements,
    tensor_type,
)
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, Exit, NodeRef
from neuc.passes.analysis.neuron_sites import RATE
from neuc.passes.module_facts import add_notes

Array = np.ndarray
Parts = list[tuple[int, SSAValue]]
"""A graded value as binary ones: their factors, in units of the neuron's smallest level."""

_MOVES = (dense.ReshapeOp, dense.TransposeOp, dense.SliceOp, dense.BroadcastOp)


@dataclass(frozen=True)
class ExpandGradedSpikes(ModulePass):
    """Turn signed and graded spikes into binary ones."""

    name = "expand-graded-spikes"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Expand every `spike.multi_threshold`.

        Raises:
            Error: NEUC-E504, graded spikes that cannot be expanded; all of them are listed.
        """
        notes: list[str] = []
        for loop in [o for o in op.walk() if isinstance(o, spike.LoopOp)]:
            _Expansion(loop, store_of(ctx)).run(notes)
        add_notes(op, *notes)


class _Expansion:
    """One loop."""

    def __init__(self, loop: spike.LoopOp, store: WeightStore) -> None:
        self.loop, self.store = loop, store
        self.before = Builder(InsertPoint.before(loop))
        self.parts: dict[SSAValue, Parts] = {}
        self.gone: list[Operation] = []
        self.added: list[tuple[SSAValue, SSAValue, SSAValue]] = []  # initial, inside, next
        self.problems: list[NodeRef] = []

    def run(self, notes: list[str]) -> None:
        for op in list(self.loop.body.block.ops):
            graded = [
                v for v in (*op.operands, *op.results) if (e := spike.event_of(v)) is not None and not e.is_binary
            ]
            if not graded:
                continue
            if isinstance(op, spike.MultiThresholdOp):
                self._neuron(op, notes)
            elif not self._reader(op):
                self._refuse(op, "has no form with binary spikes")
        if self.problems:
            raise Error(
                "NEUC-E504",
                f"graded spikes of {len(self.problems)} operation{'s'[: len(self.problems) > 1]} cannot be expanded",
                hint="recipe b with --coding rate makes neurons that can",
                nodes=self.problems,
                exit_code=Exit.UNSUPPORTED,
            )
        if self.gone:
            self._rebuild()

    def _refuse(self, op: Operation, reason: str) -> None:
        names = node_names(op)
        self.problems.append(NodeRef(names[0] if names else op.name, op.name, reason))

    # Neurons

    def _neuron(self, op: spike.MultiThresholdOp, notes: list[str]) -> None:
        unit = self._array(op.unit)
        indices = [self.loop.states.index(s) if s in self.loop.states else -1 for s in op.states]
        if unit is None or -1 in indices:
            self._refuse(op, "has a unit or states that are computed")
            return
        if any(self.loop.final[i].uses for i in indices):
            self._refuse(op, "has states that are read after the loop")
            return
        levels, inside = op.event.level_count, Builder(InsertPoint.before(op))
        whole = element_of(op.current) == i32
        if whole and (np.abs(unit) << (levels - 1)).max() > np.iinfo(np.int8).max:
            self._refuse(op, "has levels beyond 127, which no synapse of int8 carries back")
            return
        starts = [self.loop.initial[i] for i in indices]
        back = self._state(self._zeros(op.current))
        total = inside.insert(_sum(op.current, back)).results[0]
        potential = self._state(starts[0])
        membrane = inside.insert(spike.IntegratorOp(total, [potential])).next_potential
        self._next(potential, membrane)
        allowed = None
        if op.relu is not None:
            output = self._state(starts[1])
            sent = self._times(inside, back, -np.ones((), unit.dtype))
            allowed = inside.insert(spike.IntegratorOp(sent, [output])).next_potential
            self._next(output, allowed)
        parts = self._thresholds(inside, op, unit, membrane, allowed)
        feedback = [self._times(inside, bit, -factor * unit) for factor, bit in parts]
        self._next(back, self._add(inside, feedback))
        self.parts[op.events] = parts
        self.gone.append(op)
        self._tell(op, levels, notes)

    def _thresholds(
        self, b: Builder, op: spike.MultiThresholdOp, unit: Array, membrane: SSAValue, allowed: SSAValue | None
    ) -> Parts:
        parts: Parts = []
        negative = self._times(b, membrane, -np.ones((), unit.dtype))
        for k in range(op.event.level_count):
            level, weight = unit * unit.dtype.type(1 << k), 1 << max(0, k - 1)
            bound = self._constant(_bound(level, op.fire_at.value.data))
            up = b.insert(spike.ThresholdOp(membrane, bound)).events
            down = b.insert(spike.ThresholdOp(negative, bound)).events
            if allowed is not None:
                enough = b.insert(spike.ThresholdOp(allowed, self._constant(level))).events
                both = self._add(b, [self._times(b, bit, np.ones((), unit.dtype)) for bit in (down, enough)])
                down = b.insert(spike.ThresholdOp(both, self._constant(np.array(2, unit.dtype)))).events
            parts += [(weight, up), (-weight, down)]
        return parts

    def _tell(self, op: spike.MultiThresholdOp, levels: int, notes: list[str]) -> None:
        names = node_names(op)
        dims = dims_of(op.current)[1:]
        neurons = num_elements(tensor_type(element_of(op.current), dims))
        thresholds = 2 * levels * (3 if op.relu is not None else 1)
        extra = thresholds - 1
        notes.append(
            f"expand-graded-spikes: {names[0] if names else op.name}: {neurons} neurons with {levels} levels are "
            f"{neurons * thresholds} binary ones ({neurons * extra} more) behind {neurons} integrators; a spike of "
            f"2^k is k + 1 spikes, and synapses behind them are {2 * levels} times as many"
        )

    # Readers

    def _reader(self, op: Operation) -> bool:
        """Have an operation read binary values; False if it cannot."""
        if isinstance(op, _MOVES) and op.operands[0] in self.parts:
            self.parts[op.results[0]] = [
                (factor, self._copy(op, bit, spike.BINARY)) for factor, bit in self.parts[op.operands[0]]
            ]
        elif isinstance(op, dense.ConcatOp) and all(x in self.parts for x in op.xs):
            columns = [self.parts[x] for x in op.xs]
            if len({tuple(factor for factor, _ in column) for column in columns}) != 1:
                return False
            joined = [(factor, [c[i][1] for c in columns]) for i, (factor, _) in enumerate(columns[0])]
            self.parts[op.result] = [(factor, self._concat(op, bits)) for factor, bits in joined]
        elif isinstance(op, (spike.LinearOp, spike.ConvOp, spike.ScaleOp, spike.SumPoolOp)) and op.x in self.parts:
            self._synapse(op)
        elif isinstance(op, spike.AccumulateOp) and op.x in self.parts:
            b = Builder(InsertPoint.before(op))
            one = np.ones((), np.int32 if element_of(op.total) == i32 else np.float32)
            op.operands[0] = self._add(b, [self._times(b, bit, factor * one) for factor, bit in self.parts[op.x]])
            return True
        else:
            return False
        self.gone.append(op)
        return True

    def _synapse(self, op: spike.LinearOp | spike.ConvOp | spike.ScaleOp | spike.SumPoolOp) -> None:
        """A copy for each level; the first one, of factor 1, keeps the bias."""
        b = Builder(InsertPoint.before(op))
        whole = element_of(op.current) == i32
        weight = None if whole or isinstance(op, spike.SumPoolOp) else self._array(op.weight)
        one = np.ones((), np.int32 if whole else np.float32)
        currents: list[SSAValue] = []
        for i, (factor, bit) in enumerate(self.parts[op.x]):
            copy = op.clone()
            operands = [bit, *op.operands[1:]] if i == 0 else [bit, *op.operands[1:2]]
            if weight is not None and factor != 1:
                operands[1] = self._constant(weight * np.float32(factor))
            copy.operands = operands
            copy.attributes.pop(RATE, None)  # that of all levels together
            current = b.insert(copy).results[0]
            scaled = weight is None and factor != 1
            currents.append(self._times(b, current, factor * one) if scaled else current)
        op.current.replace_all_uses_with(self._add(b, currents))

    def _copy(self, op: Operation, bit: SSAValue, event: spike.EventType) -> SSAValue:
        copy = op.clone()
        copy.operands[0] = bit
        result = copy.results[0]
        Builder(InsertPoint.before(op)).insert(copy)
        return _retyped(result, event)

    def _concat(self, op: dense.ConcatOp, bits: Sequence[SSAValue]) -> SSAValue:
        made = dense.ConcatOp(bits, op.axis.value.data, tensor_type(spike.BINARY, dims_of(op.result)))
        return Builder(InsertPoint.before(op)).insert(made).result

    # States, constants, sums

    def _state(self, initial: SSAValue) -> SSAValue:
        block = self.loop.body.block
        inside = block.insert_arg(initial.type, len(block.args))
        self.added.append((initial, inside, inside))
        return inside

    def _next(self, inside: SSAValue, value: SSAValue) -> None:
        self.added = [(a, b, value if b is inside else c) for a, b, c in self.added]

    def _zeros(self, like: SSAValue) -> SSAValue:
        zero = self._constant(np.zeros((), np.int32 if element_of(like) == i32 else np.float32))
        return self.before.insert(dense.BroadcastOp(zero, like.type)).result

    def _constant(self, array: Array) -> SSAValue:
        return self.before.insert(make_constant("expanded", np.array(array, order="C"), self.store)).result

    def _array(self, value: SSAValue) -> Array | None:
        owner = value.owner
        if isinstance(owner, dense.BroadcastOp):
            return self._array(owner.x)
        return constant_array(owner, self.store) if isinstance(owner, ConstantOp) else None

    def _times(self, b: Builder, x: SSAValue, factor: Array) -> SSAValue:
        """x·factor by a synapse: numbers, of events too."""
        narrow = factor.astype(np.int8 if factor.dtype.kind == "i" else np.float32)
        return b.insert(spike.ScaleOp(x, self._constant(narrow))).current

    def _add(self, b: Builder, values: Sequence[SSAValue]) -> SSAValue:
        total, *rest = values
        for value in rest:
            total = b.insert(_sum(total, value)).results[0]
        return total

    def _rebuild(self) -> None:
        """The loop with the new states, and without the states and operations of what is gone."""
        loop, end = self.loop, self.loop.terminator
        dropped = {self.loop.states.index(s) for op in self.gone if isinstance(op, spike.LevelsOp) for s in op.states}
        kept = [i for i in range(len(loop.initial)) if i not in dropped]
        states = [end.states[i] for i in kept] + [after for _, _, after in self.added]
        outputs, initial = list(end.outputs), [loop.initial[i] for i in kept] + [start for start, _, _ in self.added]
        block, old = loop.body.block, [block_arg for i, block_arg in enumerate(_states(loop)) if i in dropped]
        end.detach()
        end.erase()
        for op in reversed(self.gone):
            op.detach()
            op.erase(safe_erase=False)
        for argument in old:
            block.erase_arg(argument)
        block.add_op(spike.YieldOp(outputs, states))
        made = spike.LoopOp(
            list(loop.scanned), initial, loop.step_count, [o.type for o in outputs], loop.detach_region(0)
        )
        made.location = loop.location
        self.before.insert(made)
        for before, after in zip(loop.outputs, made.outputs, strict=True):
            before.replace_all_uses_with(after)
        for i, index in enumerate(kept):
            loop.final[index].replace_all_uses_with(made.final[i])
        loop.detach()
        loop.erase()


def _bound(level: Array, fire_at: float) -> Array:
    """What a membrane has to reach to fire a level: fire_at·level, as `spike.multi_threshold` has it."""
    if level.dtype.kind == "f":
        return level * np.float32(fire_at)
    return -((-level * int(fire_at * 4)) // 4)


def _sum(a: SSAValue, b: SSAValue) -> dense.MapOp:
    add = dense.MapOp([a, b], a.type)
    body = Builder(InsertPoint.at_end(add.body.block))
    left, right = add.body.block.args
    made: Callable[[SSAValue, SSAValue], Operation] = arith.AddiOp if element_of(a) == i32 else arith.AddfOp
    body.insert(dense.YieldOp(body.insert(made(left, right)).results[0]))
    return add


def _states(loop: spike.LoopOp) -> Sequence[BlockArgument]:
    return loop.body.block.args[1 + len(loop.scanned) :]


def _retyped(value: SSAValue, event: spike.EventType) -> SSAValue:
    return Rewriter.replace_value_with_new_type(value, tensor_type(event, dims_of(value)))

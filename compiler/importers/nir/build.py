"""The `spike` module of a NIR graph: one loop over time, one operation or two for each node.

Values are f32 or events [B, …]; what a node reads is added up first. The order and the delays come from `order.py`,
the neurons' numbers from `neurons.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.builder import Builder
from xdsl.dialects import arith
from xdsl.dialects.builtin import f32
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import InsertPoint

from neuc.compiler.importers.nir.graph import Node
from neuc.compiler.importers.nir.neurons import Membrane, delay_steps, membrane
from neuc.compiler.importers.nir.order import Order, is_carrier
from neuc.compiler.importers.nir.shapes import Shape, conv_window, pool_window
from neuc.dialects import dense, spike
from neuc.dialects.locations import node_location
from neuc.dialects.store import make_constant, tensor_type
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error

_MOST_DELAYS = 64
"""Different delays within one Delay node; each is a ring of its own."""

Array = np.ndarray


@dataclass
class State:
    """Something a step leaves for the next.

    Attributes:
        name: what it belongs to, for arguments and results of programs that keep states.
        inside: the loop's block argument.
        after: its next value.
    """

    name: str
    inside: SSAValue
    after: SSAValue | None = None


@dataclass(frozen=True)
class Plan:
    """A NIR graph with what was found out about it.

    Attributes:
        nodes: the nodes by name.
        order: how they are computed.
        shapes: the shapes of their outputs.
        dt: seconds in a step.
        reset: how resets to 0 are meant.
        steps, batch: the first two dims of inputs and outputs.
        file: what to call the graph in locations.
    """

    nodes: Mapping[str, Node]
    order: Order
    shapes: Mapping[str, Shape]
    dt: float
    reset: str
    file: str
    steps: int | str = "T"
    batch: int | str = "B"


StateMaker = Callable[[str, Shape, "Array | None", "int | None"], State]
"""Makes a state: name, shape of a sample, what it begins with (None: it holds events, and none at first), and the
length of the ring it is, if it is one."""


class StepBuilder:
    """Emits one step into a loop's region; constants go outside of it."""

    def __init__(
        self, plan: Plan, store: WeightStore, constants: Builder, inside: Builder, state: StateMaker, notes: list[str]
    ) -> None:
        self.plan, self.nodes, self.order, self.shapes = plan, plan.nodes, plan.order, plan.shapes
        self.store, self.constants, self.inside, self.state, self.notes = store, constants, inside, state, notes
        self.values: dict[str, SSAValue] = {}
        self._before: dict[str, SSAValue] = {}
        self._carried: dict[str, State] = {}
        self._constants: dict[str, SSAValue] = {}
        self._waiting: dict[str, list[State]] = {}
        self._numbers = {name: i for i, name in enumerate(plan.nodes)}

    def run(self, slices: Mapping[str, SSAValue]) -> None:
        """Emit every node; `slices` are the inputs of this step."""
        for name in self.order.nodes:
            node = self.nodes[name]
            if name in self.order.early:
                self.values[name] = self._answer(node)
            else:
                self.values[name] = slices[name] if node.kind == "Input" else self._emit(node, self._inputs(name))
        for name, rings in self._waiting.items():
            x = self._sum(self.nodes[name], self._inputs(name))
            for state in rings:
                number = spike.event_of(state.inside) is None
                delay = spike.DelayOp(self._number(x) if number else x, state.inside)
                state.after = self._insert(self.nodes[name], delay).results[1]
        for name, state in self._carried.items():
            value = self.values[name]
            state.after = value if state.inside.type == value.type else self._number(value)

    # What nodes read

    def _inputs(self, name: str, before: bool = False) -> list[SSAValue]:
        sources = self.order.sources[name]
        return [self._previous(s) if before or late else self.values[s] for s, late in sources]

    def _previous(self, name: str) -> SSAValue:
        """What a node's output was in the step before."""
        if name in self._before:
            return self._before[name]
        node = self.nodes[name]
        if is_carrier(node):
            events = node.kind in ("IF", "LIF", "CubaLIF", "Threshold")
            state = self.state(f"{name}.last", self.shapes[name], None if events else np.zeros(()), None)
            self._carried[name], value = state, state.inside
        else:
            value = self._emit(node, self._inputs(name, before=True))
        self._before[name] = value
        return value

    def _sum(self, node: Node, inputs: Sequence[SSAValue]) -> SSAValue:
        """The sum of what a node reads; zeros if it reads nothing."""
        if not inputs:
            return self._full(self.shapes[node.name], np.zeros(()))
        total, *rest = inputs
        for other in rest:
            total = self._add(node, self._number(total), self._number(other))
        return total

    def _add(self, node: Node, a: SSAValue, b: SSAValue) -> SSAValue:
        add = dense.MapOp([a, b], a.type)
        body = Builder(InsertPoint.at_end(add.body.block))
        left, right = add.body.block.args
        total = body.insert(arith.AddfOp(left, right)).result
        body.insert(dense.YieldOp(total))
        return self._insert(node, add).results[0]

    def _number(self, value: SSAValue) -> SSAValue:
        """Events as f32."""
        if spike.event_of(value) is None:
            return value
        return self.inside.insert(spike.ScaleOp(value, self._constant("one", np.ones(())))).current

    def _constant(self, name: str, array: Array) -> SSAValue:
        if name not in self._constants:
            with np.errstate(over="ignore"):
                small = array.astype(np.float32)
            if np.isinf(small).any() and np.isfinite(array).all():
                raise Error("NEUC-E502", f"numbers of {name} are too large for f32", hint="neuc computes in f32")
            found = make_constant(name, small, self.store)
            self._constants[name] = self.constants.insert(found).result
        return self._constants[name]

    def _full(self, shape: Shape, value: Array) -> SSAValue:
        constant = self._constant("zero", value)
        return self.constants.insert(dense.BroadcastOp(constant, tensor_type(f32, [self.plan.batch, *shape]))).result

    def _insert(self, node: Node, op: Operation) -> Operation:
        op.location = node_location(node.name, self.plan.file, self._numbers[node.name])
        return self.inside.insert(op)

    # Nodes

    def _emit(self, node: Node, inputs: Sequence[SSAValue]) -> SSAValue:
        x = self._sum(node, inputs)
        match node.kind:
            case "Output":
                return x
            case "Linear" | "Affine":
                bias = None if node.kind == "Linear" else self._parameter(node, "bias")
                return self._first(node, spike.LinearOp(x, self._parameter(node, "weight"), bias))
            case "Scale":
                return self._first(node, spike.ScaleOp(x, self._parameter(node, "scale")))
            case "Conv1d" | "Conv2d":
                return self._conv(node, x)
            case "SumPool2d" | "AvgPool2d":
                return self._pool(node, x)
            case "Flatten":
                held = spike.event_of(x) or f32
                return self._first(
                    node, dense.ReshapeOp(x, tensor_type(held, [self.plan.batch, *self.shapes[node.name]]))
                )
            case "Threshold":
                theta = self._parameter(node, "threshold")
                return self._first(node, spike.ThresholdOp(self._number(x), theta, fire="gt"))
            case "Delay":
                return self._delay(node, x)
            case _:
                return self._membrane(node, x, membrane(node, self.plan.dt, self.plan.reset))

    def _first(self, node: Node, op: Operation) -> SSAValue:
        return self._insert(node, op).results[0]

    def _parameter(self, node: Node, name: str) -> SSAValue:
        return self._constant(f"{node.name}.{name}", node.numbers(name))

    def _conv(self, node: Node, x: SSAValue) -> SSAValue:
        _, strides, pads, dilations = conv_window(node)
        weight, (groups,) = node.numbers("weight"), node.integers("groups", 1)
        bias = np.broadcast_to(node.numbers("bias").reshape(-1), weight.shape[:1])
        return self._first(
            node,
            spike.ConvOp(
                x,
                self._parameter(node, "weight"),
                self._constant(f"{node.name}.bias", bias) if bias.any() else None,
                strides=strides,
                pads=pads,
                dilations=dilations,
                group=groups,
            ),
        )

    def _pool(self, node: Node, x: SSAValue) -> SSAValue:
        kernel, strides, pads = pool_window(node)
        total = self._first(node, spike.SumPoolOp(x, kernel=kernel, strides=strides, pads=pads))
        if node.kind == "SumPool2d":
            return total
        share = self._constant(f"{node.name}.share", np.array(1 / np.prod(kernel)))
        return self._first(node, spike.ScaleOp(total, share))

    def _delay(self, node: Node, x: SSAValue) -> SSAValue:
        steps = delay_steps(node, self.plan.dt, self.notes)
        different = np.unique(steps)
        if len(different) == 1:
            return self._late(node, x, int(different[0]))
        if len(different) > _MOST_DELAYS:
            what = f"Delay {node.name} has {len(different)} different delays, more than {_MOST_DELAYS}"
            raise Error("NEUC-E504", what, hint="delay groups of neurons by one Delay each", nodes=[node.ref])
        total: SSAValue | None = None
        for d in different:
            part = self._masked(node, self._late(node, x, int(d)), steps == d)
            total = part if total is None else self._add(node, total, part)
        assert total is not None
        return total

    def _answer(self, node: Node) -> SSAValue:
        """What comes out of a delay on a cycle: the first of its ring, before what goes in is known."""
        steps, shape = delay_steps(node, self.plan.dt, self.notes), self.shapes[node.name]
        parts: list[SSAValue] = []
        for d in np.unique(steps):
            state = self.state(f"{node.name}.ring{d}", shape, np.zeros(()), int(d))
            self._waiting.setdefault(node.name, []).append(state)
            dims = [self.plan.batch, *shape]
            first = dense.SliceOp(
                state.inside, [0] * (1 + len(dims)), [1] * (1 + len(dims)), tensor_type(f32, [1, *dims])
            )
            part = self._first(node, dense.ReshapeOp(self._first(node, first), tensor_type(f32, dims)))
            parts.append(part if np.size(np.unique(steps)) == 1 else self._masked(node, part, steps == d))
        return self._sum(node, parts)

    def _masked(self, node: Node, value: SSAValue, mask: Array) -> SSAValue:
        constant = self._constant(f"{node.name}.mask{len(self._constants)}", mask.astype(np.float32))
        return self._first(node, spike.ScaleOp(value, constant))

    def _late(self, node: Node, x: SSAValue, steps: int) -> SSAValue:
        if steps == 0:
            return x
        event = spike.event_of(x)
        if event is not None and not event.is_binary:
            x, event = self._number(x), None
        start = np.zeros(()) if event is None else None
        state = self.state(f"{node.name}.ring{steps}", self.shapes[node.name], start, steps)
        delay = spike.DelayOp(x, state.inside)
        state.after = delay.next_ring
        return self._first(node, delay)

    def _membrane(self, node: Node, x: SSAValue, found: Membrane) -> SSAValue:
        current = self._weighted(node, x, found)
        shape = self.shapes[node.name]
        names = ("synapse", "potential") if len(found.states) == 2 else ("potential",)
        states = [self.state(f"{node.name}.{n}", shape, a, None) for n, a in zip(names, found.states, strict=True)]
        parameters = [self._constant(f"{node.name}.p{i}", p) for i, p in enumerate(found.parameters)]
        inside = [state.inside for state in states]
        if found.soft is None:
            op: spike.MembraneOp = _LEAKY[found.op](current, inside, parameters)
        else:
            op = _SPIKING[found.op](current, inside, parameters, reset="soft" if found.soft else "hard", fire="gt")
        self._insert(node, op)
        for state, after in zip(states, op.next_states, strict=True):
            state.after = after
        if found.soft is not None or not found.rest.any():
            return op.results[0] if found.soft is not None else op.next_states[-1]
        rest = self._constant(f"{node.name}.rest", found.rest)
        return self._first(node, spike.ScaleOp(op.next_states[-1], self._constant("one", np.ones(())), rest))

    def _weighted(self, node: Node, x: SSAValue, found: Membrane) -> SSAValue:
        """The current of a neuron: gain·x + offset."""
        gain, offset = found.gain.astype(np.float32), found.offset.astype(np.float32)
        if (gain == 1).all() and not offset.any():
            return self._number(x)
        bias = self._constant(f"{node.name}.offset", offset) if offset.any() else None
        return self._first(node, spike.ScaleOp(x, self._constant(f"{node.name}.gain", gain), bias))


_LEAKY: Mapping[str, type[spike.LeakyOp]] = {
    "integrator": spike.IntegratorOp,
    "li": spike.LiOp,
    "cuba_li": spike.CubaLiOp,
}
_SPIKING: Mapping[str, type[spike.NeuronOp]] = {"if": spike.IfOp, "lif": spike.LifOp, "cuba_lif": spike.CubaLifOp}

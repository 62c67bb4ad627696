"""`convert-ann-to-snn`: a marked, calibrated network becomes one `spike.loop` between dense operations.

How single operations are converted is in `spiking/`; here is the walk over @main.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import FunctionType, ModuleOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from neuc.dialects import spike
from neuc.dialects.context import store_of
from neuc.dialects.dense import PoolOp
from neuc.dialects.locations import node_names
from neuc.dialects.spike_types import BINARY, EventType, graded
from neuc.errors import Error
from neuc.passes.analysis.affine import moves
from neuc.passes.analysis.neuron_sites import site_of
from neuc.passes.analysis.spiking_roles import Role, roles
from neuc.passes.partition import drop_unused
from neuc.passes.spiking import functions, neurons, synapses
from neuc.passes.spiking.loop_builder import LoopBuilder
from neuc.passes.spiking.values import Value


@dataclass(frozen=True)
class ConvertAnnToSnn(ModulePass):
    """Make @main a spiking network.

    1. What depends on inputs alone is computed before the loop, a constant current in each step.
    2. A site becomes `spike.if`, `spike.multi_threshold` or `spike.differential`; thresholds are the attribute
       `spike.threshold` that calibration wrote.
    3. A product with constant weights becomes `spike.linear` or `spike.conv`, the scale of spikes in its weights.
    4. Average pooling becomes `spike.sum_pool`, 1/k² waiting for the next weights; max-pooling `spike.max_pool`; a
       function of means `spike.expectation`; movements move spikes; other affine operations run on currents.
    5. Results are means over the steps, or sums of weighted changes; what is behind all neurons and not affine runs on
       them.

    ``%c = dense.conv(%x, %w, %b); %y = dense.map(%c) {max(x, 0)}`` becomes ``%c = dense.conv(%x, %w, %b)`` and
    ``spike.loop … { %s, %v2 = spike.if(%c, %v, %threshold) … }``.

    Options:
        steps: T, the most steps.
        levels: powers of two of a spike; 0 for binary spikes.
        coding: rate or differential.
        start: of rate coding, the first step that read-outs count.
    """

    name = "convert-ann-to-snn"
    steps: int = 8
    levels: int = 0
    coding: str = "rate"
    start: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Convert @main."""
        if self.steps < 1 or not 0 <= self.start < self.steps:
            raise Error("NEUC-E523", f"{self.steps} steps, read from step {self.start}", hint="0 ≤ start < steps")
        if not 0 <= self.levels <= 7 or self.coding not in ("rate", "differential"):
            hint = "levels 0 to 7; coding rate or differential"
            raise Error("NEUC-E527", f"levels = {self.levels}, coding = {self.coding!r}", hint=hint)
        if self.levels == 0 and self.coding != "rate":
            raise Error(
                "NEUC-E527", "binary spikes with differential coding", hint="changes have both signs: levels > 0"
            )
        for function in op.ops:
            if isinstance(function, func.FuncOp) and function.sym_name.data == "main":
                event = BINARY if self.levels == 0 else graded(self.levels)
                _Conversion(op, function, event, self, ctx).run()


class _Conversion:
    """The walk over one function."""

    def __init__(
        self, module: ModuleOp, function: func.FuncOp, event: EventType, options: ConvertAnnToSnn, ctx: Context
    ) -> None:
        self.function, self.event, self.options = function, event, options
        self.old = function.body.block
        self.block = Block(arg_types=[arg.type for arg in self.old.args])
        for old, new in zip(self.old.args, self.block.args):
            new.name_hint = old.name_hint
        self.build = LoopBuilder(module, store_of(ctx), self.block, options.coding == "differential")
        self.values: dict[SSAValue, Value] = {
            old: Value(static=new) for old, new in zip(self.old.args, self.block.args)
        }

    def run(self) -> None:
        """Convert the function in place.

        Raises:
            Error: NEUC-E524, an operation has no spiking form; NEUC-E525, nothing would spike.
        """
        found = roles(self.old)
        if Role.NEURON not in found.values():
            raise Error("NEUC-E525", "the module has no marked neurons", hint="run mark-neurons first")
        for op, role in found.items():
            self.build.source = op
            given = [self.values[v] for v in op.operands]
            result = self._convert(op, role, given)
            if isinstance(result, Value):
                self.values[op.results[0]] = result
        returned = self.old.last_op
        assert isinstance(returned, func.ReturnOp)
        self.build.source = None
        results = [self._number(v) for v in returned.operands]
        self._replace(self.build.finish(self.options.steps, results))

    def _convert(self, op: Operation, role: Role, given: list[Value]) -> Value | None:
        build, changing = self.build, [i for i, value in enumerate(given) if value.inner is not None]
        match role:
            case Role.CONSTANT | Role.ANALOG:
                copy = op.clone({v: build.static(value, v) for v, value in zip(op.operands, given)})
                build.before(copy)
                self.values.update((old, Value(static=new)) for old, new in zip(op.results, copy.results))
                return None
            case Role.NEURON:
                site = site_of(op)
                assert site is not None
                return neurons.neuron(site, given[0], self.event, build)
            case Role.READ_OUT:
                operands = [self._number(v) for v in op.operands]
                return Value(after=build.behind(functions.copied(op, operands)))
            case Role.UNSUPPORTED:
                name = next(iter(node_names(op)), op.name)
                raise Error("NEUC-E524", f"{name} ({op.name}) has no spiking form", hint="see the support check")
            case _:
                return self._per_step(op, role, given, changing)

    def _per_step(self, op: Operation, role: Role, given: list[Value], changing: Sequence[int]) -> Value:
        """What happens in every step."""
        build = self.build
        static = functions.static_part(op, given, build) if build.differential else None
        if (
            role is Role.MAX_POOL
            and isinstance(op, PoolOp)
            and not build.differential
            and functions.has_plain_window(op)
        ):
            return Value(static, functions.max_pool(op, given[0], build))
        if role in (Role.MAX_POOL, Role.FUNCTION):
            return Value(static, functions.function(op, given, changing, build))
        if role is Role.SYNAPSE and (current := synapses.product(op, given, build)) is not None:
            return Value(static, current)
        made = synapses.moved(op, given, changing, build) if moves(op) else synapses.pool(op, given[0], build)
        if made is not None:
            return Value(static, made.inner, made.scale)
        return Value(static, functions.affine(op, given, changing, build))

    def _number(self, old: SSAValue) -> SSAValue:
        """The number a value stands for, behind the loop."""
        value = self.values[old]
        found = neurons.read_out(value, old, self.options.start, self.build)
        if value.after is None and value.inner is not None:
            self.values[old] = Value(value.static, value.inner, value.scale, found)
        return found

    def _replace(self, results: list[SSAValue]) -> None:
        """Put the new body in the place of the old one."""
        self.block.add_op(func.ReturnOp(*results))
        last = self.block.last_op
        assert isinstance(last, func.ReturnOp)
        region = self.function.body
        self.function.detach_region(region)
        self.function.add_region(Region(self.block))
        region.drop_all_references()
        region.erase()
        inputs = list(self.function.function_type.inputs)
        self.function.function_type = FunctionType.from_lists(inputs, [v.type for v in last.operands])
        drop_unused(self.block)


def loops(module: ModuleOp) -> list[spike.LoopOp]:
    """The time loops of a module."""
    return [op for op in module.walk() if isinstance(op, spike.LoopOp)]

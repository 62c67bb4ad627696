"""`expose-spike-state`: a spiking network that runs a few steps at a time, its state passed in and out.

How states are kept between calls is the runtime's business (`runtime/anytime.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import arith, func
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, ModuleOp, StringAttr, f32, i1, i8, i64
from xdsl.ir import Attribute, Block, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from neuc.dialects import dense, spike
from neuc.dialects.onnx_base import NAME
from neuc.dialects.spike import event_of
from neuc.dialects.store import element_of, tensor_type
from neuc.errors import Error
from neuc.passes import scalar_builder as sb
from neuc.passes.map_building import map_of
from neuc.passes.module_facts import set_fact

FACT = "spike_state"
TICKS, FRESH, FIRST = "ticks", "fresh", "first"
STEPS = "T"


@dataclass(frozen=True)
class ExposeSpikeState(ModulePass):
    """Make the states of @main's one `spike.loop` inputs and outputs, and its number of steps the caller's.

    1. @main gets the inputs `ticks` (i8 [T], whose length is the number of steps), `fresh` (i1: begin anew, whatever
       the states say), `first` (i64: steps that have run before) and `state0` …; and the outputs `state0_out` …
    2. Steps are counted from `first`. What only counts steps is no state. A delayed read-out of numbers becomes a sum
       weighted 0 or 1 by the number of the step, so that layers still run all their steps at once.
    3. The fact `spike_state` tells the runtime the names and the most steps; `start`, the first step that a read-out
       counts, before which there is no answer; and `placed`, whether a rate encoder draws its numbers by the place of
       a sample in the batch, so that samples have to keep theirs.

    Before and after::

        %y = spike.loop scan() init(%v0) … steps 8 …
        %v = dense.map(%fresh, %v0, %state0) … select …
        %y = spike.loop scan(%ticks) init(%v) … steps "T" …

    Raises NEUC-E543 for a loop that scans inputs or gives all steps, for states that are events or the ring of a delay,
    whose samples cannot leave, and for operations but those of `spike` and maps that ask for the number of the step.
    """

    name = "expose-spike-state"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite @main."""
        main = next((f for f in op.ops if isinstance(f, func.FuncOp) and f.sym_name.data == "main"), None)
        loops = [] if main is None else [inner for inner in main.body.block.ops if isinstance(inner, spike.LoopOp)]
        if main is None or len(loops) != 1:
            raise _refused(f"@main has {len(loops)} loops, should have one")
        (loop,) = loops
        _check(loop)
        facts: dict[str, object] = {"steps": loop.step_count.value}
        if (start := _weigh_late_sums(loop)) > 0:
            facts["start"] = start
        if any(isinstance(inner, spike.EncodeRateOp) for inner in loop.body.block.ops):
            facts["placed"] = True
        kept = [place for place, state in enumerate(loop.states) if state.first_use is not None]
        block = main.body.block
        ticks = block.insert_arg(tensor_type(i8, [STEPS]), len(block.args))
        fresh = block.insert_arg(tensor_type(i1, []), len(block.args))
        first = block.insert_arg(tensor_type(i64, []), len(block.args))
        given = [block.insert_arg(loop.initial[place].type, len(block.args)) for place in kept]
        initial = list(loop.initial)
        for place, value in zip(kept, given, strict=True):
            initial[place] = _begin(fresh, initial[place], value, loop)
        made = _with_ticks(loop, ticks, first, initial)
        names = [f"state{number}" for number in range(len(kept))]
        _extend(main, [TICKS, FRESH, FIRST, *names], [made.final[place] for place in kept])
        set_fact(op, FACT, {"states": {name: f"{name}_out" for name in names}, **facts})


def _check(loop: spike.LoopOp) -> None:
    if loop.scanned or loop.outputs:
        raise _refused("the loop scans inputs or gives all its steps: a stream has its states as it is written")
    if not loop.step_count.is_static:
        raise _refused("its number of steps is not fixed")
    for use in loop.step.uses:
        if not isinstance(use.operation, dense.MapOp) and use.operation.dialect_name() != "spike":
            raise _refused(f"{use.operation.name} asks which step it is")
    for state in loop.states:
        if event_of(state) is not None:
            raise _refused("events are fed back or delayed: they are no numbers that can be handed over")
        if any(isinstance(use.operation, spike.DelayOp) for use in state.uses):
            raise _refused("a delay keeps its samples on the second axis, where none can leave")


def _weigh_late_sums(loop: spike.LoopOp) -> int:
    """Write delayed read-outs of numbers as ``total + x·[step ≥ start]``; the first step that all read-outs count.

    Sums of events and integers stay what they are: they read the number of the step from memory.
    """
    late = [o for o in loop.body.block.ops if isinstance(o, spike.AccumulateOp) and o.start.value.data]
    for op in late:
        if element_of(op.x) != f32 or op.step is not loop.step:
            continue
        start = op.start.value.data
        share = map_of([loop.step], lambda t, start=start: sb.where(t >= start, t.constant(1.0, f32), 0.0))
        sum_ = map_of([op.total, op.x, share.result], lambda total, x, share: total + x * share)
        Rewriter.replace_op(op, [share, sum_], [sum_.result])
    return max((op.start.value.data for op in late), default=0)


def _begin(fresh: SSAValue, start: SSAValue, given: SSAValue, loop: spike.LoopOp) -> SSAValue:
    """What a state begins with: what is given, or anew."""
    op = dense.MapOp([fresh, start, given], start.type)
    inner = op.body.block
    anew, begin, before = inner.args
    chosen = arith.SelectOp(anew, begin, before)
    inner.add_ops([chosen, dense.YieldOp(chosen.result)])
    _block(loop).insert_op_before(op, loop)
    return op.result


def _with_ticks(loop: spike.LoopOp, ticks: SSAValue, first: SSAValue, initial: Sequence[SSAValue]) -> spike.LoopOp:
    """The loop over `ticks`, its steps counted from `first`."""
    body = loop.detach_region(loop.body)
    block = body.block
    block.insert_arg(tensor_type(i8, []), 1)
    step = block.args[0]
    if step.first_use is not None:
        count = dense.MapOp([step, first], tensor_type(element_of(step), []))
        inner = count.body.block
        now, earlier = inner.args
        sum_ = arith.AddiOp(now, earlier)
        inner.add_ops([sum_, dense.YieldOp(sum_.result)])
        step.replace_all_uses_with(count.result)
        count.operands[0] = step
        before = block.first_op
        assert before is not None
        block.insert_op_before(count, before)
    made = spike.LoopOp([ticks], initial, STEPS, [], body)
    made.location = loop.location
    _block(loop).insert_op_before(made, loop)
    for old, new in zip(loop.final, made.final, strict=True):
        old.replace_all_uses_with(new)
    loop.detach()
    loop.erase()
    return made


def _block(loop: spike.LoopOp) -> Block:
    block = loop.parent_block()
    assert block is not None
    return block


def _extend(main: func.FuncOp, inputs: Sequence[str], results: Sequence[SSAValue]) -> None:
    """Name the new inputs, and return the states, too."""
    last = main.body.block.last_op
    assert isinstance(last, func.ReturnOp)
    returned = [*last.arguments, *results]
    last.detach()
    last.erase()
    main.body.block.add_op(func.ReturnOp(*returned))
    types = FunctionType.from_lists([v.type for v in main.body.block.args], [v.type for v in returned])
    main.properties["function_type"] = types
    outputs = [f"{name}_out" for name in inputs[3:]]
    main.arg_attrs = _named(main.arg_attrs, len(types.inputs), inputs)
    main.res_attrs = _named(main.res_attrs, len(types.outputs), outputs)


def _named(known: ArrayAttr[DictionaryAttr] | None, count: int, names: Sequence[str]) -> ArrayAttr[DictionaryAttr]:
    """Attributes of `count` inputs or outputs, of which the last have these names."""
    without = [DictionaryAttr({})] * (count - len(names))
    attributes: list[DictionaryAttr] = without if known is None else list(known.data)
    new: list[dict[str, Attribute]] = [{NAME: StringAttr(name)} for name in names]
    return ArrayAttr([*attributes, *map(DictionaryAttr, new)])


def _refused(what: str) -> Error:
    hint = "networks that neuc convert makes can stop early, with any encoder and any read-out of their last layer"
    return Error("NEUC-E543", f"expose-spike-state: {what}", hint=hint)

"""`partition`: cut @main into segments, as few as possible, each run by one executor.

Which operations are native was decided before: what is still an `onnx` operation has no lowering for the target and
goes to the host; everything else is native. No operation changes here; constants of time loops move before these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    ModuleOp,
    StringAttr,
    SymbolRefAttr,
)
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass

from neuc.dialects import dense_movement, spike_time
from neuc.dialects.dims import Dim
from neuc.dialects.locations import node_names
from neuc.dialects.onnx_base import NAME, OnnxOp
from neuc.dialects.onnx_schema import HOST_DOMAINS
from neuc.dialects.store import ConstantOp, dims_of
from neuc.errors import Error, Exit, InternalError, NodeRef
from neuc.passes.outlining import EXECUTOR, function_of, is_copied, outer_operands

TARGET = "neuc.target"
REASON = "neuc.reason"
"""Attribute of an `onnx` op that stays on the host: why no native form of it was made."""

HOST = "host"


@dataclass(frozen=True)
class Partition(ModulePass):
    """Move the operations of @main into segment functions; @main then only calls them.

    1. Operations nothing uses are dropped.
    2. Ready operations of one kind (native or host) are taken until none is left, then those of the other kind; of the
       two kinds to start with, the one that needs fewer segments wins. Constants are copied into each segment.
    3. A segment takes the values it uses from outside, and a further input for each symbol its types mention which no
       input of it has as a whole dim; it returns the values used after it. A native operation that mentions a symbol is
       ready when the value that brings the symbol along is there, be that a host operation's result.
    4. What @main returns unchanged (an input, a constant, a value twice) passes through a native segment.
    5. A call in @main, of a function that an earlier pass placed on some machine, stays as it is and is a segment
       of its own. Placed functions that nothing calls any more are dropped.

    With ``fallback = "error"`` host operations are refused, all at once; those of domains that onnxruntime does not
    have are refused always.

    Options:
        target: the target's name, written on native segments.
        fallback: ``host`` or ``error``.
    """

    name = "partition"

    target: str = "cpu"
    fallback: str = HOST

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Cut @main of the module."""
        main = _entry(op)
        _hoist_constants(main)
        drop_unused(main.body.block)
        if self.fallback == "error":
            _refuse_host_nodes(main, self.target)
        _refuse_foreign_nodes(main, self.target)
        _cut(op, main, self.target)
        op.attributes["neuc.level"] = StringAttr("paradigm")


def _entry(module: ModuleOp) -> func.FuncOp:
    for op in module.ops:
        if isinstance(op, func.FuncOp) and op.sym_name.data == "main" and len(op.body.blocks) == 1:
            return op
    raise Error(
        "NEUC-E254", "the module has no function @main of one block", hint="a neuc module runs from func.func @main"
    )


def _hoist_constants(main: func.FuncOp) -> None:
    """Put constants of time loops before these: segments get constants as arguments."""
    for loop in [op for op in main.body.block.ops if isinstance(op, spike_time.LoopOp)]:
        for constant in [op for op in loop.body.block.ops if isinstance(op, ConstantOp)]:
            constant.detach()
            main.body.block.insert_op_before(constant, loop)


def is_host(op: Operation) -> bool:
    """Whether `op` has to run on the host."""
    return isinstance(op, OnnxOp)


def host_nodes(main: func.FuncOp) -> list[NodeRef]:
    """The operations of `main` that run on the host, with the reasons."""
    found: list[NodeRef] = []
    for op in main.body.block.ops:
        if is_host(op):
            assert isinstance(op, OnnxOp)
            type_ = f"{op.domain}::{op.op_type}" if op.domain else op.op_type
            found.append(NodeRef(" + ".join(node_names(op)) or type_, type_, _reason(op)))
    return found


def _reason(op: OnnxOp) -> str:
    """Why the target cannot run `op`."""
    reason = op.attributes.get(REASON)
    return reason.data if isinstance(reason, StringAttr) else "no lowering"


def drop_unused(block: Block) -> None:
    """Erase the operations of `block` whose results nothing uses; all of them are free of side effects here.

    A result's size is a use of it: the operation that brings along a symbol others mention stays.
    """
    carriers = _carriers(block)
    needed: set[SSAValue] = set()
    for op in reversed(list(block.ops)):
        if op.results and all(result.first_use is None and result not in needed for result in op.results):
            op.detach()
            op.erase()
        elif not is_host(op):
            needed.update(carriers[symbol] for symbol in mentioned_symbols(op) if symbol in carriers)


def _refuse_host_nodes(main: func.FuncOp, target: str) -> None:
    nodes = host_nodes(main)
    if nodes:
        count = f"{len(nodes)} operator{'s' if len(nodes) > 1 else ''}"
        raise Error(
            "NEUC-E101",
            f"{count} not supported by target {target}",
            hint="--fallback host runs them in onnxruntime; `neuc check` lists the support of every node",
            nodes=nodes,
            exit_code=Exit.UNSUPPORTED,
        )


def _refuse_foreign_nodes(main: func.FuncOp, target: str) -> None:
    """Refuse what neither the target nor the host can run."""
    nodes = [
        NodeRef(
            " + ".join(node_names(op)) or op.full_name,
            op.full_name,
            f"{_reason(op)}, and onnxruntime does not have this domain",
        )
        for op in main.walk()
        if isinstance(op, OnnxOp) and op.domain not in HOST_DOMAINS
    ]
    if nodes:
        count = f"{len(nodes)} operator{'s' if len(nodes) > 1 else ''}"
        raise Error(
            "NEUC-E101",
            f"{count} supported neither by target {target} nor by onnxruntime",
            hint="replace them by standard operators, or give them function bodies in the model",
            nodes=nodes,
            exit_code=Exit.UNSUPPORTED,
        )


@dataclass
class _Segment:
    host: bool
    """Whether it runs on the host, if it is no call."""
    ops: list[Operation] = field(default_factory=list[Operation])
    extra_returns: list[SSAValue] = field(default_factory=list[SSAValue])
    inputs: list[SSAValue] = field(default_factory=list[SSAValue])

    @property
    def call(self) -> func.CallOp | None:
        """The call it consists of, if it is a placed function's."""
        first = self.ops[0] if self.ops else None
        return first if isinstance(first, func.CallOp) else None


def _phases(
    ops: Sequence[Operation], needed: Mapping[Operation, Sequence[Operation]], host_first: bool
) -> list[_Segment]:
    pending = [op for op in ops if not is_copied(op)]
    done: set[Operation] = {op for op in ops if is_copied(op)}
    segments: list[_Segment] = []
    host = host_first
    while pending:
        taken, rest = list[Operation](), list[Operation]()
        for op in pending:
            ready = is_host(op) == host and all(p in done for p in needed[op])
            if ready and not isinstance(op, func.CallOp):
                taken.append(op)
                done.add(op)
            else:
                rest.append(op)
        if taken:
            segments.append(_Segment(host, taken))
        calls = [op for op in rest if isinstance(op, func.CallOp) and all(p in done for p in needed[op])]
        segments += [_Segment(False, [call]) for call in calls]
        done.update(calls)
        pending, host = [op for op in rest if op not in done], not host
    return segments


def _carriers(block: Block) -> dict[str, SSAValue]:
    """The first value that has each symbol as a whole dim: where the symbol's value can be read."""
    found: dict[str, SSAValue] = {}
    for value in [*block.args, *(result for op in block.ops for result in op.results)]:
        for dim in _dims(value):
            if _is_symbol(dim):
                found.setdefault(str(dim), value)
    return found


def _producers(ops: Sequence[Operation], carriers: Mapping[str, SSAValue]) -> dict[Operation, list[Operation]]:
    """For each operation those that have to run before it."""
    producers: dict[Operation, list[Operation]] = {}
    for op in ops:
        values = outer_operands(op)
        if not is_host(op):
            carrying = [carriers[symbol] for symbol in sorted(mentioned_symbols(op)) if symbol in carriers]
            values += [value for value in carrying if value.owner in producers]  # only those before it
        producers[op] = [value.owner for value in values if isinstance(value.owner, Operation)]
    return producers


def _cut(module: ModuleOp, main: func.FuncOp, target: str) -> None:
    block = main.body.block
    *ops, last = block.ops
    assert isinstance(last, func.ReturnOp)
    carriers = _carriers(block)
    needed = _producers(ops, carriers)
    segments = min((_phases(ops, needed, host_first) for host_first in (False, True)), key=len)
    _pass_through(segments, last)
    order = {op: i for i, op in enumerate(ops)}
    for segment in segments:
        segment.ops.sort(key=order.__getitem__)
        segment.inputs = _inputs(segment, carriers)

    owner = {op: number for number, segment in enumerate(segments) for op in segment.ops}
    renamed: dict[SSAValue, SSAValue] = {}
    used_after = _used_after(segments, owner, last)
    calls: list[func.CallOp] = []
    functions: list[func.FuncOp] = []
    counts = {True: 0, False: 0}
    final: dict[tuple[int, int], SSAValue] = {}
    for number, segment in enumerate(segments):
        if segment.call is not None:
            if any(isinstance(v.owner, Operation) and is_copied(v.owner) for v in segment.call.operands):
                raise InternalError(f"@{segment.call.callee.string_value()} takes a constant; place it inside")
            call = segment.call.clone(value_mapper=dict(renamed))
            renamed.update(zip(segment.call.results, call.results))
            calls.append(call)
            continue
        name = f"{'host' if segment.host else 'seg'}{counts[segment.host]}"
        counts[segment.host] += 1
        outputs = [v for op in segment.ops for v in op.results if v in used_after[number]]
        function = function_of(name, segment.ops, segment.inputs, outputs, segment.extra_returns)
        if segment.host:
            function.arg_attrs = _named("in", len(segment.inputs))
            function.res_attrs = _named("out", len(outputs) + len(segment.extra_returns))
        function.attributes[TARGET] = StringAttr(HOST if segment.host else target)
        types = [v.type for v in (*outputs, *segment.extra_returns)]
        call = func.CallOp(SymbolRefAttr(name), [renamed.get(v, v) for v in segment.inputs], types)
        renamed.update(zip(outputs, call.results))
        for position, _ in enumerate(segment.extra_returns):
            final[number, position] = call.results[len(outputs) + position]
        calls.append(call)
        functions.append(function)
    _rewrite_main(block, last, calls, renamed, final, segments)
    _drop_uncalled(module)
    for function in functions:
        module.body.block.add_op(function)


def _drop_uncalled(module: ModuleOp) -> None:
    """Erase placed functions that nothing calls."""
    called = {op.callee.string_value() for op in module.walk() if isinstance(op, func.CallOp)}
    for op in list(module.ops):
        if isinstance(op, func.FuncOp) and EXECUTOR in op.attributes and op.sym_name.data not in called:
            op.detach()
            op.erase()


def _pass_through(segments: list[_Segment], last: func.ReturnOp) -> None:
    """Give every returned value that is no fresh result of a segment a native segment that returns it."""
    seen: set[SSAValue] = set()
    for value in last.arguments:
        owner = value.owner
        if isinstance(owner, Operation) and not is_copied(owner) and value not in seen:
            seen.add(value)
            continue
        if not segments or segments[-1].host or segments[-1].call:
            segments.append(_Segment(False))
        segments[-1].extra_returns.append(value)


def _used_after(segments: Sequence[_Segment], owner: dict[Operation, int], last: func.ReturnOp) -> list[set[SSAValue]]:
    used: list[set[SSAValue]] = [set() for _ in segments]
    readers: list[tuple[int, Iterable[SSAValue]]] = [(n, [*s.inputs, *s.extra_returns]) for n, s in enumerate(segments)]
    for number, values in [*readers, (len(segments), last.arguments)]:
        for value in values:
            if isinstance(value.owner, Operation) and owner.get(value.owner, number) != number:
                used[owner[value.owner]].add(value)
    return used


def _inputs(segment: _Segment, carriers: Mapping[str, SSAValue]) -> list[SSAValue]:
    inside = set(segment.ops)
    inputs: dict[SSAValue, None] = {}
    for value in [*(v for op in segment.ops for v in outer_operands(op)), *segment.extra_returns]:
        owner = value.owner
        if isinstance(owner, Operation) and (owner in inside or is_copied(owner)):
            continue
        inputs[value] = None
    if segment.host or segment.call:
        return list(inputs)
    bound = {str(d) for v in inputs for d in _dims(v) if _is_symbol(d)}
    mentioned = {s for v in inputs for d in _dims(v) for s in d.symbols}
    mentioned.update(s for op in segment.ops for s in mentioned_symbols(op))
    for symbol in sorted(mentioned - bound):
        carrier = carriers.get(symbol)
        if carrier is not None and carrier.owner not in inside:
            inputs[carrier] = None
    return list(inputs)


def _dims(value: SSAValue) -> tuple[Dim, ...]:
    try:
        return dims_of(value)
    except ValueError:
        return ()


def _is_symbol(dim: Dim) -> bool:
    return dim.symbols == frozenset({str(dim)})


def mentioned_symbols(op: Operation) -> set[str]:
    """The symbols whose values `op` needs: those in its results' types and in its properties."""
    found = {s for inner in op.walk() for v in inner.results for d in _dims(v) for s in d.symbols}
    texts: list[str] = []
    if isinstance(op, spike_time.LoopOp):
        texts = [op.steps.data]
    elif isinstance(op, dense_movement.DimsOp):
        texts = [e.data for e in op.exprs]
    elif isinstance(op, dense_movement.SliceOp):
        texts = [e.data for e in op.starts]
    return found | {s for text in texts for s in Dim.parse(text).symbols}


def _named(prefix: str, count: int) -> ArrayAttr[DictionaryAttr]:
    return ArrayAttr([DictionaryAttr({NAME: StringAttr(f"{prefix}{i}")}) for i in range(count)])


def _rewrite_main(
    block: Block,
    last: func.ReturnOp,
    calls: Sequence[func.CallOp],
    renamed: dict[SSAValue, SSAValue],
    final: dict[tuple[int, int], SSAValue],
    segments: Sequence[_Segment],
) -> None:
    passed = {number: iter(range(len(s.extra_returns))) for number, s in enumerate(segments)}
    returned: list[SSAValue] = []
    seen: set[SSAValue] = set()
    for value in last.arguments:
        if value in renamed and value not in seen:
            seen.add(value)
            returned.append(renamed[value])
        else:
            number = next(n for n, s in enumerate(segments) if s.extra_returns)
            returned.append(final[number, next(passed[number])])
    for op in reversed(list(block.ops)):
        op.detach()
        op.erase(safe_erase=False)
    for call in calls:
        block.add_op(call)
    block.add_op(func.ReturnOp(*returned))

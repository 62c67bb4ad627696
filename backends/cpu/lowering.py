"""From a native segment (a function of tensor ops) to a `cpu.program`: the frame every op's lowering works in.

`@lowers(OpClass)` registers how one op becomes launches; those functions live in `lowerings/`. `SegmentLowering` is
what they see: buffers of values, packed weights, temporaries, launches. Placing buffers is `plan_memory`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from itertools import count
from pkgutil import iter_modules
from typing import TypeAlias, TypeVar, cast

import numpy as np
from xdsl.dialects import func, llvm
from xdsl.ir import Block, Operation, Region, SSAValue

from neuc.backends.cpu.ahead import begin
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.kernels.base import KernelSpec
from neuc.dialects.cpu import CheckOp, ProgramOp, RequireOp
from neuc.dialects.cpu_launch import BufferArgAttr, BufferOp, LaunchArg, LaunchOp
from neuc.dialects.dense_shapes import undecided
from neuc.dialects.dims import Dim, DimLike, product
from neuc.dialects.lazy_array import LazyArray
from neuc.dialects.locations import Location, node_names
from neuc.dialects.store import ConstantOp, constant_array, constant_value, dims_of, element_of, numpy_dtype
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error, InternalError, NodeRef

OpT = TypeVar("OpT", bound=Operation)
Supports: TypeAlias = Callable[[Operation], str | None]


@dataclass(frozen=True)
class _Lowering:
    run: Callable[[Operation, SegmentLowering], None]
    supports: Supports | None


_LOWERINGS: dict[type[Operation], _Lowering] = {}


def lowers(
    op_type: type[OpT], *, supports: Callable[[OpT], str | None] | None = None
) -> Callable[[Callable[[OpT, SegmentLowering], None]], Callable[[OpT, SegmentLowering], None]]:
    """Register the decorated function as the CPU lowering of `op_type`.

    Args:
        op_type: the op class.
        supports: returns why a given op cannot be lowered, None if it can.
    """

    def register(function: Callable[[OpT, SegmentLowering], None]) -> Callable[[OpT, SegmentLowering], None]:
        _LOWERINGS[op_type] = _Lowering(
            cast(Callable[[Operation, SegmentLowering], None], function), cast("Supports | None", supports)
        )
        return function

    return register


# Dialects whose lowerings are loaded when one of their operations comes along, and how those files' names begin.
_ON_DEMAND = {"crossbar": "crossbar", "energy": "relax", "spike": "spike"}


def _lowering_of(op: Operation) -> _Lowering | None:
    _load_lowerings("")
    if (prefix := _ON_DEMAND.get(op.name.partition(".")[0])) is not None:
        _load_lowerings(prefix)
    return _LOWERINGS.get(type(op))


@lru_cache
def _load_lowerings(prefix: str) -> None:
    """Import the files whose names begin with `prefix`; those that belong to no such dialect if it is empty."""
    package = import_module("neuc.backends.cpu.lowerings")
    for module in iter_modules(package.__path__):
        family = next((p for p in _ON_DEMAND.values() if module.name.startswith(p)), "")
        if family == prefix:
            import_module(f"{package.__name__}.{module.name}")


def unsupported_reason(op: Operation) -> str | None:
    """Why no CPU target can run `op`; None if they can."""
    if isinstance(op, ConstantOp):
        return None
    entry = _lowering_of(op)
    if entry is None:
        return f"{op.name} has no CPU kernel"
    for value in (*op.operands, *op.results):
        try:
            dims_of(value)
        except ValueError:
            # Types that are no tensors (packed weights, tables) are the lowering's own affair.
            continue
        if numpy_dtype(element_of(value)) is None:
            return f"element type {element_of(value)} has no CPU kernels"
    return entry.supports(op) if entry.supports is not None else None


@dataclass
class SegmentLowering:
    """What a lowering function works with while one segment becomes a `cpu.program`."""

    isa: Isa
    store: WeightStore
    kernels: dict[str, llvm.FuncOp]
    block: Block = field(default_factory=Block)
    _buffers: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    _weights: dict[str, SSAValue] = field(default_factory=dict[str, SSAValue])
    _facts: dict[SSAValue, object] = field(default_factory=dict[SSAValue, object])
    _absorbed: set[Operation] = field(default_factory=set[Operation])
    _instead: dict[Operation, Callable[[], None]] = field(default_factory=dict["Operation", "Callable[[], None]"])
    _required: set[Dim] = field(default_factory=set[Dim])
    _in_place: dict[LaunchOp, tuple[int, int]] = field(default_factory=dict["LaunchOp", "tuple[int, int]"])
    _op: Operation | None = None
    _loop: tuple[str, Dim] | None = None
    _symbols: set[str] = field(default_factory=set[str])

    def dims(self, value: SSAValue) -> tuple[Dim, ...]:
        """The dims of a tensor value."""
        return dims_of(value)

    def itemsize(self, value: SSAValue) -> int:
        """Bytes per element of a tensor value."""
        dtype = numpy_dtype(element_of(value))
        if dtype is None:
            raise InternalError(f"{value.type} reached the CPU lowering")
        return dtype.itemsize

    def nbytes(self, value: SSAValue) -> Dim:
        """Bytes of a tensor value."""
        return product(self.dims(value)) * self.itemsize(value)

    def constant(self, value: SSAValue) -> np.ndarray | None:
        """The array behind a constant value, else None."""
        return constant_value(value, self.store)

    def buffer(self, value: SSAValue, nbytes: DimLike | None = None) -> SSAValue:
        """The buffer of `value`, made on first use: an arena range, or the weight of a constant.

        Args:
            value: a tensor value, or a value of another type together with its size.
            nbytes: the size of a value that is no plain tensor.
        """
        known = self._buffers.get(value)
        if known is not None:
            return known
        if isinstance(value.owner, ConstantOp):
            array = constant_array(value.owner, self.store)
            name = value.owner.entry.data if value.owner.entry is not None else "const"
            made = self.weight(name, array)
        else:
            made = self.temp(self.nbytes(value) if nbytes is None else nbytes)
        self._buffers[value] = made
        return made

    def temp(self, nbytes: DimLike) -> SSAValue:
        """A fresh arena buffer of `nbytes` bytes, live from its first launch to its last."""
        return self._add(BufferOp("arena", nbytes)).result

    def weight(self, name: str, array: np.ndarray | LazyArray) -> SSAValue:
        """A buffer with the bytes of `array`, which goes into the weight store."""
        lazy = isinstance(array, LazyArray)
        key = self.store.add_lazy(name, array) if lazy else self.store.add(name, array)
        if key not in self._weights:
            self._weights[key] = self._add(BufferOp("weight", array.nbytes, entry=key)).result
        return self._weights[key]

    def alias(self, value: SSAValue, of: SSAValue) -> None:
        """Let `value` share the buffer of the value (or the buffer) `of`: the same bytes under another shape."""
        self._buffers[value] = of if isinstance(of.owner, BufferOp) else self.buffer(of)

    def remember(self, value: SSAValue, fact: object) -> None:
        """Attach what a later lowering must know about `value` (a layout, say)."""
        self._facts[value] = fact

    def fact(self, value: SSAValue) -> object | None:
        """What `remember` attached."""
        return self._facts.get(value)

    def absorb(self, ops: Iterable[Operation]) -> None:
        """Leave out these later ops, whose work the launches of another do."""
        self._absorbed.update(ops)

    def lower_instead(self, op: Operation, run: Callable[[], None]) -> None:
        """When this later op's turn comes, run `run` and not its own lowering."""
        self._instead[op] = run

    def launch(
        self,
        kernel: KernelSpec,
        args: Sequence[LaunchArg],
        *,
        work: DimLike,
        grain: int = 1,
        effort: DimLike | None = None,
        scratch: DimLike = 0,
        op: Operation | None = None,
        location: Location | None = None,
    ) -> None:
        """Append a launch of `kernel`, whose code is built once per module.

        Args:
            kernel: what to run.
            args: its argument slots: buffers, (buffer, byte offset), dims or ints, Python floats for f32.
            work: work units.
            grain: units are handed out in multiples of it.
            effort: about how many operations a unit is, if it may be so many that threads should share the last ones.
            scratch: bytes of private memory each thread needs.
            op: whose location the launch keeps; by default the op being lowered.
            location: the launch's location, if it is no single op's.
        """
        name = kernel.name
        if name not in self.kernels:
            self.kernels[name] = kernel.build(self.isa)
            begin(self.kernels[name], self.isa)
        writes = kernel.writes()
        how = LaunchOp(
            name, args, work=work, grain=grain, effort=effort, scratch=scratch, writes=writes, loop=self._loop
        )
        made = self._add(how)
        if kernel.in_place is not None:
            self._in_place[made] = kernel.in_place
        source = op if op is not None else self._op
        if location is not None:
            made.location = location
        elif source is not None:
            made.location = source.location

    @contextmanager
    def repeated(self, steps: Dim) -> Iterator[Dim]:
        """Launches made within are one step of a loop of so many; gives the step's number, from 0.

        Raises:
            InternalError: in a loop within a loop.
        """
        if self._loop is not None:
            raise InternalError("a loop of launches within another")
        symbol = next(name for n in count() if (name := f"step{n}") not in self._symbols)
        self._symbols.add(symbol)
        self._loop = (symbol, steps)
        yield Dim.symbol(symbol)
        self._loop = None

    def has_kernel(self, kernel: KernelSpec) -> bool:
        """Whether the module launches this kernel already."""
        return kernel.name in self.kernels

    def check(self, body: Block) -> None:
        """Have the kernels that `body` launches tried before the program runs; see `cpu.check`."""
        made = self._add(CheckOp(Region(body)))
        if self._op is not None:
            made.location = self._op.location

    def lower(self, op: Operation) -> None:
        """Lower one op by its registered function; what its sizes have to fulfil becomes requirements."""
        self._require(op)
        if op in self._absorbed:
            return
        entry = _lowering_of(op)
        if entry is None:
            raise InternalError(f"{op.name} ({', '.join(node_names(op))}) reached the CPU lowering")
        self._op = op
        if op in self._instead:
            self._instead[op]()
            return
        entry.run(op, self)

    def _require(self, op: Operation) -> None:
        with undecided() as conditions:
            op.verify_()
        for zero in conditions:
            if zero not in self._required:
                self._required.add(zero)
                self._add(RequireOp(zero)).location = op.location

    def _add(self, op: _AddedT) -> _AddedT:
        self.block.add_op(op)
        return op


_AddedT = TypeVar("_AddedT", BufferOp, LaunchOp, RequireOp, CheckOp)


def lower_segment(segment: func.FuncOp, isa: Isa, store: WeightStore, kernels: dict[str, llvm.FuncOp]) -> ProgramOp:
    """The `cpu.program` of one native segment; its kernels are added to `kernels`.

    Raises:
        Error: NEUC-E252, it holds operations that no kernel runs, as edited IR may; all are named.
    """
    _refuse_unsupported(segment)
    s = SegmentLowering(isa, store, kernels)
    s._symbols.update(symbol for a in segment.body.block.args for dim in dims_of(a) for symbol in dim.symbols)
    arguments = list(segment.body.block.args)
    for index, argument in enumerate(arguments):
        s._buffers[argument] = s._add(BufferOp("input", s.nbytes(argument), index=index)).result
    returned: list[SSAValue] = []
    for op in segment.body.block.ops:
        if isinstance(op, func.ReturnOp):
            returned = list(op.arguments)
        elif not isinstance(op, ConstantOp):
            s.lower(op)
    _bind_outputs(s, returned)
    _drop_unused(s.block.ops)
    _put_outputs_over_inputs(s)
    return ProgramOp(
        segment.sym_name.data,
        [a.type for a in arguments],
        [v.type for v in returned],
        Region(s.block),
    )


def _refuse_unsupported(segment: func.FuncOp) -> None:
    refused: list[NodeRef] = []
    for op in segment.body.block.ops:
        reason = None if isinstance(op, func.ReturnOp) else unsupported_reason(op)
        if reason is not None:
            refused.append(NodeRef(", ".join(node_names(op)) or op.name, op.name, reason))
    if refused:
        raise Error(
            "NEUC-E252",
            f"lower-to-cpu: @{segment.sym_name.data} holds what no CPU kernel runs",
            hint="change the IR before this pass, or start from the model",
            nodes=refused,
        )


def _bind_outputs(s: SegmentLowering, returned: Iterable[SSAValue]) -> None:
    from neuc.backends.cpu.kernels.copy_bytes import BYTES_PER_UNIT, CopyBytesKernel

    for index, value in enumerate(returned):
        source = s.buffer(value)
        op = source.owner
        assert isinstance(op, BufferOp)
        if op.kind.data == "arena":
            bound = BufferOp("output", op.nbytes.data, index=index)
            s.block.insert_op_before(bound, op)
            op.result.replace_all_uses_with(bound.result)
            for known, buffer in list(s._buffers.items()):
                if buffer is op.result:
                    s._buffers[known] = bound.result
            s.block.erase_op(op)
            continue
        target = s._add(BufferOp("output", op.nbytes.data, index=index)).result
        size = s.nbytes(value)
        s.launch(
            CopyBytesKernel(),
            [source, target, size],
            work=size.ceildiv(BYTES_PER_UNIT),
            op=value.owner if isinstance(value.owner, Operation) else None,
        )


def _put_outputs_over_inputs(s: SegmentLowering) -> None:
    """Note which outputs may be the same memory as an input: those a copy of it begins and nothing reads it after."""
    order = {op: place for place, op in enumerate(s.block.ops)}
    for launch, (read, written) in s._in_place.items():
        if launch not in order or launch.loop is not None:
            continue
        source, target = (_whole_buffer(launch, place) for place in (read, written))
        if source is None or target is None or source.kind.data != "input" or target.kind.data != "output":
            continue
        users = (
            [order[use.operation] for use in source.result.uses],
            [order[use.operation] for use in target.result.uses],
        )
        alone = max(users[0]) == min(users[1]) == order[launch] and source.nbytes == target.nbytes
        if alone and target.over is None and source.index is not None:
            target.properties["over"] = source.index


def _whole_buffer(launch: LaunchOp, place: int) -> BufferOp | None:
    """The buffer of an argument slot, if it is passed from its beginning."""
    slots = launch.slots.data
    slot = slots[place]
    if not isinstance(slot, BufferArgAttr) or slot.offset.data != "0":
        return None
    owner = launch.buffers[sum(isinstance(before, BufferArgAttr) for before in slots[:place])].owner
    return owner if isinstance(owner, BufferOp) else None


def _drop_unused(ops: Iterable[Operation]) -> None:
    """Drop launches of which nothing reads what they write, last first, and then buffers nothing uses."""
    for op in reversed(list(ops)):
        if isinstance(op, LaunchOp) and op.writes is not None and all(_is_unread(buffer) for buffer in op.written()):
            op.detach()
            op.erase()
    for op in list(ops):
        if isinstance(op, BufferOp) and op.kind.data in ("arena", "weight") and op.result.first_use is None:
            op.detach()
            op.erase()


def _is_unread(buffer: SSAValue) -> bool:
    """Whether a buffer is of the arena and has one user, which is to write it."""
    owner = buffer.owner
    return isinstance(owner, BufferOp) and owner.kind.data == "arena" and len(list(buffer.uses)) == 1

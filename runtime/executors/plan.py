"""Op tables: a segment's launches as flat arrays the driver can walk, for one set of concrete sizes.

`SegmentCode` is prepared once per segment; `Plan` holds what depends on sizes; a `Table` is one copy of a plan that a
single run may use, with the addresses of that run's memory filled in.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from neuc.errors import Error
from neuc.runtime.executors.base import Array, Setting
from neuc.runtime.expr import Expr
from neuc.runtime.native.layout import PIECE_SHARE, SLOT, JobSlot, RecordSlot, record_slots
from neuc.runtime.native.pool import aligned_bytes
from neuc.runtime.program import (
    ArenaBuffer,
    BufferArg,
    F32Arg,
    InputBuffer,
    IntArg,
    Launch,
    NativeSegment,
    OutputBuffer,
    Scalar,
    WeightBuffer,
)
from neuc.runtime.shapes import CompiledShape, bad_size, size_of

MAX_WORK = 2**40
PIECE_BYTES = 4 * 2**20
"""Weights that are worth a call of a kernel: a call costs as much as reading a few hundredths of them."""
PIECE_GRAINS = 24
"""Grains that are worth a call, whatever weights they read."""
MAX_PIECES = 16
"""Most of the least pieces of a thread's share of a launch, by either of these measures."""
PIECE_OPERATIONS = 2**26
"""Operations that are worth a call: a few hundredths of a millisecond of the fastest products."""
_LINE = 128  # threads' scratch areas share no pair of cache lines

Ints = NDArray[np.int64]


def address_of(array: Array) -> int:
    """Address of a contiguous array's first element."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))  # a third of the cost of ``array.ctypes``
    except (TypeError, ValueError):  # read-only, or empty
        return array.ctypes.data


def align_up(nbytes: int, alignment: int = _LINE) -> int:
    """The next multiple of ``alignment``."""
    return -(-nbytes // alignment) * alignment


class SegmentCode:
    """A native segment with everything done that does not depend on sizes."""

    def __init__(self, name: str, segment: NativeSegment, setting: Setting) -> None:
        self.name = name
        self.segment = segment
        self.threads = setting.pool.threads
        self.inputs = [CompiledShape(spec) for spec in segment.inputs]
        self.outputs = [CompiledShape(spec) for spec in segment.outputs]
        self.kernels = np.array([setting.kernels[launch.kernel] for launch in segment.launches], np.uint64).view(
            np.int64
        )
        self.grains = np.array([launch.grain for launch in segment.launches], np.int64)
        self.meets = np.array([launch.barrier for launch in segment.launches], np.bool_)
        self.labels = [(launch.label or launch.kernel, launch.kernel) for launch in segment.launches]
        self.weights = setting.weights
        self.weight_bytes = np.array([self._weight_bytes(launch) for launch in segment.launches], np.int64)
        self.exprs: list[Expr] = []
        self._numbers: dict[Scalar, int] = {}
        self._known: Ints | None = None
        self._lay_out_args()
        self.works = np.array([self._number(launch.work) for launch in segment.launches], np.int64)
        self.efforts = np.array([self._number(launch.effort or 0) for launch in segment.launches], np.int64)

    def _lay_out_args(self) -> None:
        """Number all argument slots and sort them by what has to be added to each."""
        constants: list[int] = []
        firsts: list[int] = []
        by_expr: dict[str, list[tuple[int, int]]] = {"buffer": [], "value": []}
        arena: list[int] = []
        inputs: list[list[int]] = [[] for _ in self.inputs]
        outputs: list[list[int]] = [[] for _ in self.outputs]
        for launch in self.segment.launches:
            firsts.append(len(constants))
            for arg in launch.args:
                slot, constant = len(constants), 0
                match arg:
                    case IntArg(value):
                        by_expr["value"].append((slot, self._number(value)))
                    case F32Arg(value):
                        constant = int(np.float32(value).view(np.uint32))
                    case BufferArg(index, offset):
                        by_expr["value"].append((slot, self._number(offset)))
                        match self.segment.buffers[index]:
                            case ArenaBuffer(start):
                                by_expr["buffer"].append((slot, self._number(start)))
                                arena.append(slot)
                            case WeightBuffer(key):
                                constant = address_of(self.weights[key])
                            case InputBuffer(place):
                                inputs[place].append(slot)
                            case OutputBuffer(place):
                                outputs[place].append(slot)
                constants.append(constant)
        self.constants = np.array(constants, np.int64)
        self.firsts = np.array(firsts, np.int64)
        self.buffer_slots, self.buffer_numbers = _columns(by_expr["buffer"])
        self.value_slots, self.value_numbers = _columns(by_expr["value"])
        self.arena_slots = np.array(arena, np.int64)
        self.input_slots, self.output_slots = inputs, outputs

    def _weight_bytes(self, launch: Launch) -> int:
        buffers = [self.segment.buffers[arg.buffer] for arg in launch.args if isinstance(arg, BufferArg)]
        return sum(self.weights[buffer.key].nbytes for buffer in buffers if isinstance(buffer, WeightBuffer))

    def _number(self, value: Scalar) -> int:
        """The number of an expression; equal ones are evaluated once."""
        known = self._numbers.get(value)
        if known is None:
            known = self._numbers[value] = len(self.exprs)
            self.exprs.append(Expr.of(value))
        return known

    def run_out(
        self, origin: Ints, slots: Ints, works: Ints, efforts: Ints, numbers: Ints, values: Ints
    ) -> SegmentCode:
        """The code of other launches, each a copy of one of these.

        Args:
            origin: which launch each is.
            slots: for each argument slot of theirs the one here.
            works: the number of each launch's work among `values`.
            efforts: and of its effort.
            numbers: for each slot the number of its value, where it has one.
            values: all expressions, evaluated.
        """
        made = copy.copy(self)
        for name in ("kernels", "grains", "meets", "weight_bytes"):
            setattr(made, name, getattr(self, name)[origin])
        made.labels = [self.labels[int(launch)] for launch in origin]
        made.constants = self.constants[slots]
        sizes = np.diff(np.append(self.firsts, len(self.constants)))[origin]
        made.firsts = np.cumsum(sizes) - sizes
        made.value_slots, _ = _moved(self.value_slots, slots)
        made.value_numbers = numbers[made.value_slots]
        made.buffer_slots, places = _moved(self.buffer_slots, slots)
        made.buffer_numbers = self.buffer_numbers[places]
        made.arena_slots, _ = _moved(self.arena_slots, slots)
        made.input_slots, made.output_slots = (
            [_moved(np.array(old, np.int64), slots)[0].tolist() for old in group]
            for group in (self.input_slots, self.output_slots)
        )
        made.works, made.efforts, made._known = works, efforts, values
        return made

    def values(self, symbols: Mapping[str, int]) -> Ints:
        """All expressions, evaluated."""
        return (
            self._known
            if self._known is not None
            else np.array([expr.evaluate(symbols) for expr in self.exprs], np.int64)
        )


def _moved(old: Ints, slots: Ints) -> tuple[Ints, Ints]:
    """Which of `slots` are among `old`, and where in it each is."""
    places = np.full(max(int(slots.max(initial=-1)), int(old.max(initial=-1))) + 1, -1)
    places[old] = np.arange(len(old))
    found = places[slots]
    new = np.flatnonzero(found >= 0)
    return new, found[new]


def _columns(pairs: Sequence[tuple[int, int]]) -> tuple[Ints, Ints]:
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


class Memory:
    """The arena and the threads' scratch areas of one run."""

    def __init__(self, nbytes: int) -> None:
        try:
            self._bytes = aligned_bytes(nbytes)
        except (MemoryError, ValueError) as error:
            raise Error(
                "NEUC-E315", f"not enough memory for {nbytes:,} bytes of working space", hint="run a smaller batch"
            ) from error
        self.nbytes = nbytes
        self.base = address_of(self._bytes)


class Plan:
    """What a segment does for one set of sizes."""

    def __init__(self, code: SegmentCode, symbols: Mapping[str, int]) -> None:
        self.code = code
        self.symbols = dict(symbols)
        self._check_requirements()
        self.input_shapes = [shape.evaluate(symbols) for shape in code.inputs]
        self.output_shapes = [shape.evaluate(symbols) for shape in code.outputs]
        arena = size_of("the arena", code.segment.arena, symbols)
        scratch = size_of("the scratch area", code.segment.scratch, symbols)
        values = code.values(symbols)
        self._check_buffers(arena)
        self.template = self._fill_args(values, arena)
        self.works = values[code.works]
        if len(self.works) and not 0 <= int(self.works.min()) <= int(self.works.max()) <= MAX_WORK:
            raise bad_size(f"a launch of segment '{code.name}' has an impossible amount of work", symbols)
        self.launches = np.flatnonzero(self.works)
        works, grains = self.works[self.launches], code.grains[self.launches]
        self.threads = code.threads if bool((works >= 2 * grains).any()) else 1
        self.ranges = split_work(works, grains, self.threads)
        efforts = np.clip(values[code.efforts][self.launches], 0, MAX_WORK)
        self.pieces = pieces_of(self.ranges, grains, code.weight_bytes[self.launches], efforts)
        self.barriers = goals(barriers(self.ranges, groups_of(code.meets, self.launches)), self.ranges, self.pieces)
        self.scratch_at = align_up(arena)
        self.scratch_stride = align_up(scratch)
        self.nbytes = self.scratch_at + self.scratch_stride * self.threads
        self.inputs = [self._offsets(slots) for slots in code.input_slots]
        self.outputs = [self._offsets(slots) for slots in code.output_slots]
        self.tables: list[Table] = []

    def _offsets(self, slots: Sequence[int]) -> list[tuple[int, int]]:
        """Slots that take an address, each with what is to be added to it."""
        return [(slot, int(self.template[slot])) for slot in slots]

    def _check_requirements(self) -> None:
        for requirement in self.code.segment.requirements:
            expr = Expr.of(requirement.zero)
            if expr.evaluate(self.symbols) != 0:
                concerned = {name: self.symbols[name] for name in sorted(expr.names)}
                raise bad_size(f"sizes do not go together at {requirement.label or self.code.name}", concerned)

    def _check_buffers(self, arena: int) -> None:
        for index, buffer in enumerate(self.code.segment.buffers):
            if isinstance(buffer, ArenaBuffer):
                offset = size_of(f"offset of buffer {index}", buffer.offset, self.symbols)
                nbytes = size_of(f"size of buffer {index}", buffer.nbytes or 0, self.symbols)
                if offset + nbytes > arena:
                    raise bad_size(f"buffer {index} of segment '{self.code.name}' ends outside the arena", self.symbols)

    def _fill_args(self, values: Ints, arena: int) -> Ints:
        """All arguments, without the addresses that differ between runs."""
        code = self.code
        offsets = values[code.value_numbers]
        template = code.constants.copy()
        template[code.value_slots] += offsets
        template[code.buffer_slots] += values[code.buffer_numbers]
        inside = template[code.arena_slots]
        if len(inside) and not 0 <= int(inside.min()) <= int(inside.max()) <= arena:
            raise bad_size(f"an argument of segment '{code.name}' points outside the arena", self.symbols)
        return template


def split_work(works: Ints, grains: Ints, threads: int) -> Ints:
    """Half-open ranges ``[launch, thread, (begin, end)]``: equal shares in whole grains.

    A launch of less than two grains is not worth sharing: thread 0 does it alone.
    """
    groups = -(-works // grains)
    cuts = groups[:, None] * np.arange(threads + 1) // threads * grains[:, None]
    cuts = np.minimum(cuts, works[:, None])
    alone = works < 2 * grains
    cuts[alone, 1:] = works[alone, None]
    return np.stack((cuts[:, :-1], cuts[:, 1:]), axis=2)


def groups_of(meets: NDArray[np.bool_], launches: Ints) -> Ints:
    """For each of these launches the number of barriers before it, in a list that says which need one."""
    return np.cumsum(meets, dtype=np.int64)[launches]


def barriers(ranges: Ints, groups: Ints) -> Ints:
    """1 for each launch after which all threads must meet: the last of its group.

    Between two groups of thread 0 alone nobody else has anything to wait for. The last barrier is always there: it
    tells thread 0 that the others are done with the job.
    """
    count, threads = ranges.shape[:2]
    needed = np.zeros(count, np.int64)
    if threads == 1 or not count:
        return needed
    busy: NDArray[np.bool_] = ranges[:, :, 0] < ranges[:, :, 1]
    ends = np.append(np.flatnonzero(np.diff(groups)), count - 1)
    starts = np.append(0, ends[:-1] + 1)
    shared = np.logical_or.reduceat(np.logical_or.reduce(busy[:, 1:], axis=1), starts)
    needed[ends] = shared | np.append(shared[1:], True)
    return needed


def pieces_of(ranges: Ints, grains: Ints, weight_bytes: Ints, efforts: Ints) -> Ints:
    """How many units of each launch a thread takes at least at a time; 0 for launches of thread 0 alone.

    Threads that are done with their own ranges go on with others', so that one that has lost its CPU, or has a slow
    one, holds up the rest by a piece at most. A range is one piece unless it reads many weights, or has many grains or
    many operations.
    """
    sizes = ranges[:, :, 1] - ranges[:, :, 0]
    threads = ranges.shape[1]
    largest = sizes.max(axis=1, initial=0)
    worth = np.maximum(weight_bytes // (threads * PIECE_BYTES), largest // (grains * PIECE_GRAINS))
    units = -(-largest // (grains * np.clip(worth, 1, MAX_PIECES))) * grains
    busy = np.maximum(-(-PIECE_OPERATIONS // np.maximum(grains * efforts, 1)), 1) * grains
    units = np.where(efforts > 0, np.minimum(units, busy), units)
    return np.where((sizes > 0).sum(axis=1) > 1, units, 0)


def calls_of(sizes: Ints, pieces: Ints) -> Ints:
    """How many pieces ranges of these sizes are taken in, as the driver cuts them; 1 where pieces are 0.

    A piece is as many times the least one as fit into a part (`PIECE_SHARE`) of what is left, but at least one.
    """
    calls = ((pieces == 0) & (sizes > 0)).astype(np.int64)
    least, left = np.maximum(pieces, 1), np.where(pieces > 0, sizes, 0)
    while bool((left > 0).any()):
        calls += left > 0
        left = left - np.maximum(left // (PIECE_SHARE * least), 1) * least
    return calls


def goals(barriers: Ints, ranges: Ints, pieces: Ints) -> Ints:
    """For each launch with a barrier how many pieces are done by then, from the beginning; else 0."""
    calls = calls_of(ranges[:, :, 1] - ranges[:, :, 0], pieces[:, None]).sum(axis=1)
    return np.where(barriers > 0, np.cumsum(calls), 0)


class Table:
    """A plan's launches in the driver's layout, used by one run at a time."""

    def __init__(self, plan: Plan, trace: bool) -> None:
        code, threads, chosen = plan.code, plan.threads, plan.launches
        self.plan = plan
        self._args = plan.template.copy()
        self._slots = self._args.data  # single elements are set several times faster through it
        self._records = np.zeros((len(chosen), record_slots(threads)), np.int64)
        self._records[:, RecordSlot.KERNEL] = code.kernels[chosen]
        self._records[:, RecordSlot.ARGS] = code.firsts[chosen] * SLOT + address_of(self._args)
        self._records[:, RecordSlot.BARRIER] = plan.barriers
        self._records[:, RecordSlot.PIECE] = plan.pieces
        self._records[:, RecordSlot.RANGES :] = plan.ranges.reshape(len(chosen), 2 * threads)
        self.trace = np.zeros((len(chosen), threads, 3), np.int64) if trace else None
        self._first = np.ascontiguousarray(plan.ranges[:, :, 0].T)
        self._next = aligned_bytes(self._first.nbytes).view(np.int64)
        self._job = np.zeros(JobSlot.SIZE, np.int64)
        self._job[JobSlot.RECORDS] = address_of(self._records)
        self._job[JobSlot.COUNT] = len(chosen)
        self._job[JobSlot.STRIDE] = record_slots(threads) * SLOT
        self._job[JobSlot.THREADS] = threads
        self._job[JobSlot.SCRATCH_STRIDE] = plan.scratch_stride
        self._job[JobSlot.TRACE] = 0 if self.trace is None else address_of(self.trace)
        self._job[JobSlot.NEXT] = address_of(self._next)
        self._job[JobSlot.FIRST] = address_of(self._first)
        self.job = address_of(self._job)
        self._arena = 0

    def use(self, memory: Memory) -> None:
        """Fill in the addresses of working memory."""
        if memory.base != self._arena:
            moved = self.plan.code.arena_slots
            self._args[moved] = self.plan.template[moved] + memory.base
            self._job[JobSlot.SCRATCH] = memory.base + self.plan.scratch_at
            self._arena = memory.base

    def place(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Fill in the addresses of inputs and outputs."""
        slots = self._slots
        for places, array in zip(self.plan.inputs, inputs):
            address = address_of(array)
            for slot, offset in places:
                slots[slot] = address + offset
        for places, array in zip(self.plan.outputs, outputs):
            address = address_of(array)
            for slot, offset in places:
                slots[slot] = address + offset

"""The program schema: what a backend emits and the runtime executes, as plain data with a JSON form.

Only structure lives here; `neuc.runtime.program_reader` checks what comes from a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from neuc.runtime.checked_json import Node, dump_json, parse_json

FORMAT = (1, 5)
"""Program format (major, minor): a reader takes its own major and any minor up to its own.

1.1 has checks, 1.2 launches without a barrier, and outputs in the place of inputs, 1.3 launches that are repeated,
1.4 how much there is to do in a unit of a launch, 1.5 inputs that are indices of tables.
"""

DTYPES = "float32 float64 float16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool".split()  # numpy's names

Scalar: TypeAlias = int | str
"""A size or offset: an integer, or an expression over the segment's symbols (`neuc.runtime.expr`)."""


@dataclass(frozen=True)
class IndexBound:
    """What an input picks from: a table of ``rows`` rows, by ``node``; -rows up to rows - 1 are indices of it."""

    rows: int
    node: str


@dataclass(frozen=True)
class IoSpec:
    """A tensor at a border: of the program (named) or of a segment (known by its index, ``name`` empty).

    An output of the program whose rank only a run can tell (of a host segment) is not ``ranked``; its shape is empty.
    An input of the program that picks rows of tables has the ``index`` of the smallest.
    """

    dtype: str
    shape: tuple[Scalar, ...]
    name: str = ""
    ranked: bool = True
    index: IndexBound | None = None


@dataclass(frozen=True)
class ArenaBuffer:
    """Bytes ``offset`` … ``offset + nbytes`` of the segment's arena; without ``nbytes`` only ``offset`` is checked."""

    offset: Scalar
    nbytes: Scalar | None = None


@dataclass(frozen=True)
class WeightBuffer:
    """A tensor of the weight file, 64-byte aligned, read-only."""

    key: str


@dataclass(frozen=True)
class InputBuffer:
    """The segment's input ``index``: C-contiguous, aligned to its element size only."""

    index: int


@dataclass(frozen=True)
class OutputBuffer:
    """The segment's output ``index``: C-contiguous, aligned to its element size only.

    It may be the same memory as the input it is ``over``, if there is one.
    """

    index: int
    over: int | None = None


Buffer: TypeAlias = ArenaBuffer | WeightBuffer | InputBuffer | OutputBuffer


@dataclass(frozen=True)
class BufferArg:
    """Kernel argument: address of a buffer plus a byte offset."""

    buffer: int
    offset: Scalar = 0


@dataclass(frozen=True)
class IntArg:
    """Kernel argument: a 64-bit integer."""

    value: Scalar


@dataclass(frozen=True)
class F32Arg:
    """Kernel argument: a float32, passed as its bits in the low half of the slot."""

    value: float


Arg: TypeAlias = BufferArg | IntArg | F32Arg


@dataclass(frozen=True)
class Repeat:
    """A loop over ``count`` steps: in each, ``symbol`` is the step's number, from 0, in the launches' expressions."""

    symbol: str
    count: Scalar


@dataclass(frozen=True)
class Launch:
    """One kernel over ``work`` units, split between threads in multiples of ``grain``.

    Without a ``barrier`` it runs at the same time as the launches before it, back to the last that has one; what it
    touches, none of them writes, and what it writes, none of them touches. Neighbours with the same ``repeat`` are
    the body of one loop. ``effort`` is about how many operations a unit is, where that is known.
    """

    kernel: str
    args: tuple[Arg, ...]
    work: Scalar
    grain: int = 1
    label: str = ""
    barrier: bool = True
    repeat: Repeat | None = None
    effort: Scalar | None = None


@dataclass(frozen=True)
class Requirement:
    """A condition on sizes that only a run can tell: ``zero`` is 0. ``label`` says which nodes need it."""

    zero: Scalar
    label: str = ""


@dataclass(frozen=True)
class WorkBuffer:
    """``nbytes`` bytes of a check's own memory."""

    nbytes: int


CheckBuffer: TypeAlias = WeightBuffer | WorkBuffer


@dataclass(frozen=True)
class Check:
    """Kernels that are tried once when a session loads, on data whose result is known.

    Attributes:
        label: what it is about, for people.
        buffers: a check's own; its launches name these.
        launches: run in order by one thread; all their sizes are plain integers.
        scratch: bytes of scratch memory.
        result: which buffer is looked at in the end.
        expected: weight with what it should hold, int32 [n, m].
        stride: int32s from the beginning of one of these n rows to the next in the buffer.
    """

    label: str
    buffers: tuple[CheckBuffer, ...]
    launches: tuple[Launch, ...]
    scratch: int
    result: int
    expected: str
    stride: int

    def weight_keys(self) -> frozenset[str]:
        """Keys of the weights it reads."""
        return frozenset(b.key for b in self.buffers if isinstance(b, WeightBuffer)) | {self.expected}


@dataclass(frozen=True)
class NativeSegment:
    """A list of launches of compiled kernels over one arena."""

    symbols: tuple[str, ...]
    arena: Scalar
    scratch: Scalar
    inputs: tuple[IoSpec, ...]
    outputs: tuple[IoSpec, ...]
    buffers: tuple[Buffer, ...]
    launches: tuple[Launch, ...]
    requirements: tuple[Requirement, ...] = ()
    checks: tuple[Check, ...] = ()
    kind: str = field(default="native", init=False)


@dataclass(frozen=True)
class HostSegment:
    """A sub-model in ONNX form, run by onnxruntime; ``inputs`` and ``outputs`` are its names."""

    model: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kind: str = field(default="host", init=False)


@dataclass(frozen=True)
class OtherSegment:
    """A segment for an executor registered under ``kind``; ``data`` is its own JSON object.

    Of ``weights`` each is a key of a weight array: the segment's name, a dot, and the executor's name for it.
    """

    kind: str
    data: Mapping[str, object]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...] = ()


Segment: TypeAlias = NativeSegment | HostSegment | OtherSegment


@dataclass(frozen=True)
class ScheduleStep:
    """Run a segment on named values, giving named values."""

    segment: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """A whole model: signature, segments, and the order to run them in."""

    inputs: tuple[IoSpec, ...]
    outputs: tuple[IoSpec, ...]
    segments: Mapping[str, Segment]
    schedule: tuple[ScheduleStep, ...]

    def kernels(self) -> frozenset[str]:
        """Names of all kernels that are launched."""
        launched = (launch for segment in self._native() for launch in segment.launches)
        return frozenset(launch.kernel for launch in (*launched, *(item for c in self.checks() for item in c.launches)))

    def weight_keys(self) -> frozenset[str]:
        """Keys of all weights that are used."""
        used = {b.key for segment in self._native() for b in segment.buffers if isinstance(b, WeightBuffer)}
        others = [s.weights for s in self.segments.values() if isinstance(s, OtherSegment)]
        return frozenset(used.union(*others, *(check.weight_keys() for check in self.checks())))

    def checks(self) -> list[Check]:
        """The checks of all segments."""
        return [check for segment in self._native() for check in segment.checks]

    def _native(self) -> list[NativeSegment]:
        return [segment for segment in self.segments.values() if isinstance(segment, NativeSegment)]

    def host_models(self) -> frozenset[str]:
        """Member paths of all host sub-models."""
        return frozenset(s.model for s in self.segments.values() if isinstance(s, HostSegment))

    def to_json(self) -> dict[str, object]:
        """The program as JSON data."""
        return {
            "format": list(FORMAT),
            "inputs": [_io_json(spec) for spec in self.inputs],
            "outputs": [_io_json(spec) for spec in self.outputs],
            "segments": {name: _segment_json(segment) for name, segment in self.segments.items()},
            "schedule": [
                {"segment": s.segment, "inputs": list(s.inputs), "outputs": list(s.outputs)} for s in self.schedule
            ],
        }

    def to_bytes(self) -> bytes:
        """The JSON text stored in artifacts."""
        return dump_json(self.to_json())

    @staticmethod
    def from_bytes(data: bytes | memoryview, what: str = "program") -> Program:
        """Parse and check JSON text."""
        return Program._read(parse_json(data, what))

    @staticmethod
    def from_json(data: object, what: str = "program") -> Program:
        """Check JSON data and build the program; every fault is an `Error` that names the place."""
        return Program._read(Node(data, what))

    @staticmethod
    def _read(node: Node) -> Program:
        from neuc.runtime.program_reader import read_program  # it needs the classes of this file

        return cast("Program", read_program(node))  # a cast because type checkers meet this file under two names


def _io_json(spec: IoSpec) -> dict[str, object]:
    named: dict[str, object] = {"name": spec.name} if spec.name else {}
    index = {} if spec.index is None else {"index": {"rows": spec.index.rows, "node": spec.index.node}}
    return {**named, "dtype": spec.dtype, "shape": list(spec.shape) if spec.ranked else None, **index}


def _buffer_json(buffer: Buffer) -> dict[str, object]:
    match buffer:
        case ArenaBuffer(offset, None):
            return {"kind": "arena", "offset": offset}
        case ArenaBuffer(offset, nbytes):
            return {"kind": "arena", "offset": offset, "nbytes": nbytes}
        case WeightBuffer(key):
            return {"kind": "weight", "key": key}
        case InputBuffer(index):
            return {"kind": "input", "index": index}
        case OutputBuffer(index, None):
            return {"kind": "output", "index": index}
        case OutputBuffer(index, over):
            return {"kind": "output", "index": index, "over": over}


def _launch_json(launch: Launch) -> dict[str, object]:
    rest: dict[str, object] = {} if launch.barrier else {"barrier": False}
    if launch.repeat is not None:
        rest["repeat"] = {"symbol": launch.repeat.symbol, "count": launch.repeat.count}
    if launch.effort is not None:
        rest["effort"] = launch.effort
    return {
        "kernel": launch.kernel,
        "args": [_arg_json(arg) for arg in launch.args],
        "work": launch.work,
        "grain": launch.grain,
        "label": launch.label,
        **rest,
    }


def _check_json(check: Check) -> dict[str, object]:
    return {
        "label": check.label,
        "buffers": [
            {"kind": "work", "nbytes": b.nbytes} if isinstance(b, WorkBuffer) else _buffer_json(b)
            for b in check.buffers
        ],
        "launches": [_launch_json(launch) for launch in check.launches],
        "scratch": check.scratch,
        "result": check.result,
        "expected": check.expected,
        "stride": check.stride,
    }


def _arg_json(arg: Arg) -> dict[str, object]:
    match arg:
        case BufferArg(buffer, 0):
            return {"buffer": buffer}
        case BufferArg(buffer, offset):
            return {"buffer": buffer, "offset": offset}
        case IntArg(value):
            return {"int": value}
        case F32Arg(value):
            return {"f32": value if math.isfinite(value) else str(value)}


def _segment_json(segment: Segment) -> dict[str, object]:
    match segment:
        case NativeSegment():
            return {
                "kind": "native",
                "symbols": list(segment.symbols),
                "arena": segment.arena,
                "scratch": segment.scratch,
                "inputs": [_io_json(spec) for spec in segment.inputs],
                "outputs": [_io_json(spec) for spec in segment.outputs],
                "buffers": [_buffer_json(buffer) for buffer in segment.buffers],
                "launches": [_launch_json(launch) for launch in segment.launches],
                "requirements": [{"zero": r.zero, "label": r.label} for r in segment.requirements],
                "checks": [_check_json(check) for check in segment.checks],
            }
        case HostSegment(model, inputs, outputs):
            return {"kind": "host", "model": model, "inputs": list(inputs), "outputs": list(outputs)}
        case OtherSegment(kind, data, inputs, outputs, weights):
            named = {"weights": list(weights)} if weights else {}
            return {"kind": kind, "data": dict(data), "inputs": list(inputs), "outputs": list(outputs), **named}

"""Reading programs that may be damaged or hostile: every index, name, expression and size is checked before use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from neuc.errors import Error
from neuc.runtime.checked_json import Node
from neuc.runtime.expr import Expr
from neuc.runtime.program import (
    DTYPES,
    FORMAT,
    ArenaBuffer,
    Arg,
    Buffer,
    BufferArg,
    Check,
    CheckBuffer,
    F32Arg,
    HostSegment,
    IndexBound,
    InputBuffer,
    IntArg,
    IoSpec,
    Launch,
    NativeSegment,
    OtherSegment,
    OutputBuffer,
    Program,
    Repeat,
    Requirement,
    Scalar,
    ScheduleStep,
    Segment,
    WeightBuffer,
    WorkBuffer,
)

_NAME = re.compile(r"[A-Za-z0-9_.$-]{1,200}")
_MAX_ARGS = 256
_MAX_RANK = 32
_MAX_STRING = 4096
_MAX_CHECKS = 4096
_MAX_CHECK_PARTS = 16
_MAX_CHECK_BYTES = 2**24
_MAX_CHECK_WORK = 2**20


def read_program(node: Node) -> Program:
    """Check JSON data and build the program."""
    check_format(node.get("format"))
    node.only(("format", "inputs", "outputs", "segments", "schedule"))
    inputs = node.get("inputs").list_of(_read_input)
    outputs = node.get("outputs").list_of(_read_output)
    segments = {name: _read_segment(item) for name, item in node.get("segments").fields()}
    schedule = node.get("schedule").list_of(_read_step)
    program = Program(inputs, outputs, segments, schedule)
    _check_flow(program, node)
    return program


def check_format(node: Node) -> None:
    """Refuse a format whose major differs from ours or whose minor is newer."""
    version = node.list_of(lambda item: item.integer(0, 10**6), most=2)
    if len(version) != 2:
        raise node.refuse("expected [major, minor]")
    if version[0] != FORMAT[0] or version[1] > FORMAT[1]:
        theirs, ours = ".".join(map(str, version)), ".".join(map(str, FORMAT))
        raise Error(
            "NEUC-E304",
            f"{node.where}: format {theirs} cannot be read; this neuc reads up to {ours}",
            hint="update neuc, or compile the model again with this version",
        )


def _read_named_io(node: Node, *, unranked: bool = False, also: Sequence[str] = ()) -> IoSpec:
    spec = _read_io(node, unranked=unranked, also=also)
    if not spec.name:
        raise node.refuse("a name is needed")
    return spec


def _read_input(node: Node) -> IoSpec:
    if not node.has("index"):
        return _read_named_io(node)
    bound = node.get("index")
    bound.only(("rows", "node"))
    spec = _read_named_io(node, also=("index",))
    if np.dtype(spec.dtype).kind not in "iu":
        raise bound.refuse(f"{spec.dtype} is no index")
    index = IndexBound(bound.get("rows").integer(1), bound.get("node").string(_MAX_STRING))
    return replace(spec, index=index)


def _read_output(node: Node) -> IoSpec:
    return _read_named_io(node, unranked=True)


def _read_io(node: Node, *, unranked: bool = False, also: Sequence[str] = ()) -> IoSpec:
    node.only(("name", "dtype", "shape", *also))
    name = node.get("name").string(_MAX_STRING) if node.has("name") else ""
    dtype = node.get("dtype").string()
    if dtype not in DTYPES:
        raise node.refuse(f"unknown dtype '{dtype[:40]}'")
    shape = node.get("shape")
    if unranked and shape.value is None:
        return IoSpec(dtype, (), name, ranked=False)
    return IoSpec(dtype, shape.list_of(_read_scalar, _MAX_RANK), name)


def _read_scalar(node: Node) -> Scalar:
    if isinstance(node.value, str):
        Expr.of(node.string())
        return node.value
    return node.integer()


def _scalar_in(symbols: frozenset[str]) -> Callable[[Node], Scalar]:
    """A reader of expressions over these symbols only."""

    def read(node: Node) -> Scalar:
        value = _read_scalar(node)
        unknown = Expr.of(value).names - symbols
        if unknown:
            raise node.refuse(f"'{min(unknown)}' is not a symbol of this segment")
        return value

    return read


def _read_segment(node: Node) -> Segment:
    kind = node.get("kind").string(200)
    if kind == "native":
        return _read_native(node)
    if kind == "host":
        node.only(("kind", "model", "inputs", "outputs"))
        return HostSegment(
            node.get("model").string(_MAX_STRING), _read_names(node, "inputs"), _read_names(node, "outputs")
        )
    node.only(("kind", "data", "inputs", "outputs", "weights"))
    data = {key: item.value for key, item in node.get("data").fields()}
    weights = _read_names(node, "weights") if node.has("weights") else ()
    return OtherSegment(kind, data, _read_names(node, "inputs"), _read_names(node, "outputs"), weights)


def _read_names(node: Node, key: str) -> tuple[str, ...]:
    return node.get(key).list_of(lambda item: item.string(_MAX_STRING))


def _read_native(node: Node) -> NativeSegment:
    node.only(
        ("kind", "symbols", "arena", "scratch", "inputs", "outputs", "buffers", "launches", "requirements", "checks")
    )
    symbols = node.get("symbols").list_of(_read_symbol, 1000)
    if len(set(symbols)) != len(symbols):
        raise node.refuse("a symbol is repeated")
    scalar = _scalar_in(frozenset(symbols))
    inputs = node.get("inputs").list_of(_read_io)
    outputs = node.get("outputs").list_of(_read_io)
    for key, specs in (("inputs", inputs), ("outputs", outputs)):
        for index, spec in enumerate(specs):
            for dim in spec.shape:
                scalar(Node(dim, f"{node.where}.{key}[{index}].shape"))
    counts = {"input": len(inputs), "output": len(outputs)}
    buffers = node.get("buffers").list_of(lambda item: _read_buffer(item, scalar, counts))
    launches = node.get("launches").list_of(lambda item: _read_repeated(item, frozenset(symbols), len(buffers)))
    arena, scratch = scalar(node.get("arena")), scalar(node.get("scratch"))
    conditions: tuple[Requirement, ...] = ()
    if node.has("requirements"):
        conditions = node.get("requirements").list_of(lambda item: _read_requirement(item, scalar))
    checks = node.get("checks").list_of(_read_check, _MAX_CHECKS) if node.has("checks") else ()
    return NativeSegment(symbols, arena, scratch, inputs, outputs, buffers, launches, conditions, checks)


def _read_symbol(node: Node) -> str:
    name = node.string(200)
    if not (name.isascii() and name.isidentifier()) or name in ("max", "min"):
        raise node.refuse(f"'{name[:40]}' is not a symbol name")
    return name


def _read_buffer(node: Node, scalar: Callable[[Node], Scalar], counts: Mapping[str, int]) -> Buffer:
    kind = node.get("kind").string(200)
    match kind:
        case "arena":
            node.only(("kind", "offset", "nbytes"))
            nbytes = scalar(node.get("nbytes")) if node.has("nbytes") else None
            return ArenaBuffer(scalar(node.get("offset")), nbytes)
        case "weight":
            node.only(("kind", "key"))
            return WeightBuffer(node.get("key").string(_MAX_STRING))
        case "input":
            node.only(("kind", "index"))
            return InputBuffer(_read_index(node, "index", kind, counts))
        case "output":
            node.only(("kind", "index", "over"))
            over = _read_index(node, "over", "input", counts) if node.has("over") else None
            return OutputBuffer(_read_index(node, "index", kind, counts), over)
        case _:
            raise node.refuse(f"unknown buffer kind '{kind[:40]}'")


def _read_index(node: Node, key: str, kind: str, counts: Mapping[str, int]) -> int:
    index = node.get(key).integer()
    if index >= counts[kind]:
        raise node.refuse(f"{kind} {index} does not exist; the segment has {counts[kind]}")
    return index


def _read_repeated(node: Node, symbols: frozenset[str], buffers: int) -> Launch:
    """A launch of a segment with these symbols, which may be part of a loop and then knows its step, too."""
    if not node.has("repeat"):
        return _read_launch(node, _scalar_in(symbols), buffers)
    loop = node.get("repeat")
    loop.only(("symbol", "count"))
    symbol = _read_symbol(loop.get("symbol"))
    if symbol in symbols:
        raise loop.refuse(f"'{symbol[:40]}' is a symbol of the segment already")
    repeat = Repeat(symbol, _scalar_in(symbols)(loop.get("count")))
    return replace(_read_launch(node, _scalar_in(symbols | {symbol}), buffers), repeat=repeat)


def _read_launch(node: Node, scalar: Callable[[Node], Scalar], buffers: int) -> Launch:
    node.only(("kernel", "args", "work", "grain", "label", "barrier", "repeat", "effort"))
    kernel = node.get("kernel").string()
    if not _NAME.fullmatch(kernel) or ".." in kernel:
        raise node.refuse(f"'{kernel[:40]}' is not a kernel name")
    args = node.get("args").list_of(lambda item: _read_arg(item, scalar, buffers), _MAX_ARGS)
    grain = node.get("grain").integer(1, 2**31) if node.has("grain") else 1
    label = node.get("label").string(_MAX_STRING) if node.has("label") else ""
    barrier = node.get("barrier").boolean() if node.has("barrier") else True
    effort = scalar(node.get("effort")) if node.has("effort") else None
    return Launch(kernel, args, scalar(node.get("work")), grain, label, barrier, effort=effort)


def _read_requirement(node: Node, scalar: Callable[[Node], Scalar]) -> Requirement:
    node.only(("zero", "label"))
    return Requirement(scalar(node.get("zero")), node.get("label").string(_MAX_STRING))


def _read_check(node: Node) -> Check:
    """A check: a file must not make loading it slow or big, so all sizes in it are small plain integers."""
    node.only(("label", "buffers", "launches", "scratch", "result", "expected", "stride"))
    buffers = node.get("buffers").list_of(_read_check_buffer, _MAX_CHECK_PARTS)
    launches = node.get("launches").list_of(
        lambda item: _read_launch(item, _read_check_size, len(buffers)), _MAX_CHECK_PARTS
    )
    for launch in launches:
        for arg in launch.args:
            buffer = buffers[arg.buffer] if isinstance(arg, BufferArg) else None
            if isinstance(arg, BufferArg) and isinstance(buffer, WorkBuffer) and int(arg.offset) > buffer.nbytes:
                raise node.refuse(f"an argument points outside buffer {arg.buffer}")
        if int(launch.work) > _MAX_CHECK_WORK:
            raise node.refuse(f"{launch.work} units of work are more than {_MAX_CHECK_WORK}")
    result = node.get("result").integer()
    if result >= len(buffers) or not isinstance(buffers[result], WorkBuffer):
        raise node.get("result").refuse("no buffer of the check's own")
    return Check(
        node.get("label").string(_MAX_STRING),
        buffers,
        launches,
        node.get("scratch").integer(0, _MAX_CHECK_BYTES),
        result,
        node.get("expected").string(_MAX_STRING),
        node.get("stride").integer(0, _MAX_CHECK_BYTES),
    )


def _read_check_buffer(node: Node) -> CheckBuffer:
    if node.get("kind").string(200) == "work":
        node.only(("kind", "nbytes"))
        return WorkBuffer(node.get("nbytes").integer(0, _MAX_CHECK_BYTES))
    buffer = _read_buffer(node, _read_check_size, {"input": 0, "output": 0})
    if not isinstance(buffer, WeightBuffer):
        raise node.refuse("a check reads weights and memory of its own")
    return buffer


def _read_check_size(node: Node) -> int:
    return node.integer(0, 2**40)


def _read_arg(node: Node, scalar: Callable[[Node], Scalar], buffers: int) -> Arg:
    if node.has("buffer"):
        node.only(("buffer", "offset"))
        index = node.get("buffer").integer()
        if index >= buffers:
            raise node.refuse(f"buffer {index} does not exist; the segment has {buffers}")
        return BufferArg(index, scalar(node.get("offset")) if node.has("offset") else 0)
    if node.has("int"):
        node.only(("int",))
        value = node.get("int")
        # Sizes are never negative, but a plain integer argument (a step, an axis) may be.
        return IntArg(value.integer(-(2**62)) if isinstance(value.value, int) else scalar(value))
    node.only(("f32",))
    value = node.get("f32")
    if value.value in ("inf", "-inf", "nan"):
        return F32Arg(float(value.string()))
    return F32Arg(value.number())


def _read_step(node: Node) -> ScheduleStep:
    node.only(("segment", "inputs", "outputs"))
    return ScheduleStep(
        node.get("segment").string(_MAX_STRING), _read_names(node, "inputs"), _read_names(node, "outputs")
    )


def _check_flow(program: Program, node: Node) -> None:
    """Every value is made once and before it is used; every step fits its segment."""
    known = [spec.name for spec in program.inputs]
    if len(set(known)) != len(known):
        raise node.get("inputs").refuse("an input name is repeated")
    values = set(known)
    for index, step in enumerate(program.schedule):
        place = Node(None, f"{node.where}.schedule[{index}]")
        segment = program.segments.get(step.segment)
        if segment is None:
            raise place.refuse(f"segment '{step.segment[:80]}' does not exist")
        for what, got, want in (("inputs", step.inputs, segment.inputs), ("outputs", step.outputs, segment.outputs)):
            if len(got) != len(want):
                raise place.refuse(f"{len(got)} {what}, but segment '{step.segment}' has {len(want)}")
        for name in step.inputs:
            if name not in values:
                raise place.refuse(f"value '{name[:80]}' is used before it is made")
        for name in step.outputs:
            if name in values:
                raise place.refuse(f"value '{name[:80]}' is made twice")
            values.add(name)
    for spec in program.outputs:
        if spec.name not in values:
            raise node.get("outputs").refuse(f"output '{spec.name[:80]}' is made by no step")

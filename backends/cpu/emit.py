"""From the machine level to the program the runtime executes: plain data, object code, and the weights it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from xdsl.dialects import func, llvm
from xdsl.dialects.builtin import FloatAttr, ModuleOp, StringAttr, UnrankedTensorType
from xdsl.ir import Attribute, SSAValue

from neuc.backends.cpu.ahead import objects_ahead
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.lower_to_cpu import module_isa
from neuc.backends.placed import emit_placed, executor_of
from neuc.dialects.cpu import CallOp, CheckOp, ProgramOp, RequireOp
from neuc.dialects.cpu_launch import BufferArgAttr, BufferOp, LaunchOp
from neuc.dialects.dims import Dim
from neuc.dialects.lazy_array import LazyArray
from neuc.dialects.locations import node_names
from neuc.dialects.onnx import function_names
from neuc.dialects.store import dims_of, element_of, numpy_dtype
from neuc.dialects.weight_store import WeightStore
from neuc.errors import InternalError
from neuc.passes.analysis.index_bounds import index_bounds
from neuc.passes.module_facts import kept_weights
from neuc.runtime import program as schema


@dataclass(frozen=True)
class EmittedProgram:
    """Everything an artifact holds.

    Attributes:
        program: the schedule and its segments.
        kernels: object code by kernel name.
        weights: arrays by key, just those the program names; of large models, lazy ones.
        debug_map: per segment, the ONNX node names of each launch.
        isa: what the kernels were compiled for.
    """

    program: schema.Program
    kernels: Mapping[str, bytes]
    weights: Mapping[str, np.ndarray | LazyArray]
    debug_map: Mapping[str, Sequence[Sequence[str]]]
    isa: Isa

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights, lazy ones made."""
        return {key: w.array() if isinstance(w, LazyArray) else w for key, w in self.weights.items()}


def emit(module: ModuleOp, store: WeightStore) -> EmittedProgram:
    """Compile the kernels of a machine-level module and write its program.

    Args:
        module: `@main`, `cpu.program`s, host segments and kernels.
        store: the weights its buffers name.

    Raises:
        InternalError: the module is not at the machine level, or a kernel does not compile.
    """
    isa = module_isa(module)
    main: func.FuncOp | None = None
    segments: dict[str, schema.Segment] = {}
    debug_map: dict[str, list[list[str]]] = {}
    kernel_ops: dict[str, llvm.FuncOp] = {}
    placed_weights: dict[str, np.ndarray] = {}
    for op in module.ops:
        match op:
            case ProgramOp():
                name = op.sym_name.data
                segments[name] = native_segment(op)
                debug_map[name] = [list(node_names(launch)) for launch in _launches(op)]
            case llvm.FuncOp():
                kernel_ops[op.sym_name.data] = op
            case func.FuncOp() if op.sym_name.data == "main":
                main = op
            case func.FuncOp():
                if executor_of(op) is None:
                    segments[op.sym_name.data] = _host_segment(op)
                else:
                    segments[op.sym_name.data], arrays = emit_placed(op, module, store)
                    placed_weights |= arrays
                debug_map[op.sym_name.data] = [list(node_names(inner)) for inner in op.body.block.ops]
            case _:
                raise InternalError(f"{op.name} at the machine level")
    if main is None:
        raise InternalError("the module has no @main")
    program = _schedule(main, segments)
    missing = program.kernels() - kernel_ops.keys()
    if missing:
        raise InternalError(f"launched kernels without code: {', '.join(sorted(missing))}")
    used = {name: op for name, op in kernel_ops.items() if name in program.kernels()}
    keys = sorted(program.weight_keys() - placed_weights.keys() | set(kept_weights(module)))
    weights = {key: store.entry(key) for key in keys} | placed_weights
    return EmittedProgram(program, _compile(used, isa), weights, debug_map, isa)


def _compile(kernels: Mapping[str, llvm.FuncOp], isa: Isa) -> dict[str, bytes]:
    """Objects of all kernels, longest first where they were not begun before."""

    def blocks(name: str) -> int:
        return sum(len(block.ops) for block in kernels[name].body.blocks)

    names = sorted(kernels, key=lambda name: (-blocks(name), name))
    with objects_ahead() as objects:
        made = dict(zip(names, objects.finish([kernels[name] for name in names], isa), strict=True))
    return {name: made[name] for name in sorted(kernels)}


def _launches(program: ProgramOp) -> list[LaunchOp]:
    return [op for op in program.body.block.ops if isinstance(op, LaunchOp)]


def native_segment(op: ProgramOp) -> schema.NativeSegment:
    """A `cpu.program` as the runtime runs it."""
    if op.arena is None:
        raise InternalError(f"@{op.sym_name.data} has no memory plan; run plan-memory")
    numbers: dict[SSAValue, int] = {}
    buffers: list[schema.Buffer] = []
    for inner in op.body.block.ops:
        if isinstance(inner, BufferOp):
            numbers[inner.result] = len(buffers)
            buffers.append(_buffer(inner))
    launches = _launches(op)
    scratch = Dim.of(0)
    for launch in launches:
        scratch = scratch.maximum(Dim.parse(launch.scratch.data))
    inputs = tuple(_io(t) for t in op.inputs)
    symbols = {s for t in op.inputs for d in dims_of(t) for s in d.symbols}
    return schema.NativeSegment(
        symbols=tuple(sorted(symbols)),
        arena=_scalar(op.arena.data),
        scratch=_scalar(str(scratch)),
        inputs=inputs,
        outputs=tuple(_io(t) for t in op.outputs),
        buffers=tuple(buffers),
        launches=tuple(_launch(launch, numbers) for launch in launches),
        requirements=tuple(
            schema.Requirement(inner.zero.data, " + ".join(node_names(inner)))
            for inner in op.body.block.ops
            if isinstance(inner, RequireOp)
        ),
        checks=tuple(emit_check(inner) for inner in op.body.block.ops if isinstance(inner, CheckOp)),
    )


def emit_check(op: CheckOp) -> schema.Check:
    """A check of kernels, as the runtime runs it."""
    numbers: dict[SSAValue, int] = {}
    buffers: list[schema.CheckBuffer] = []
    launches: list[schema.Launch] = []
    scratch = 0
    for inner in op.body.block.ops:
        if isinstance(inner, BufferOp):
            numbers[inner.result] = len(buffers)
            entry = inner.entry
            size = Dim.parse(inner.nbytes.data).value
            buffers.append(schema.WorkBuffer(size) if entry is None else schema.WeightBuffer(entry.data))
        elif isinstance(inner, LaunchOp):
            launches.append(_launch(inner, numbers))
            scratch = max(scratch, Dim.parse(inner.scratch.data).value)
    end = op.expectation
    label = " + ".join(node_names(op))
    result, stride = numbers[end.buffer], end.stride.value.data
    return schema.Check(label, tuple(buffers), tuple(launches), scratch, result, end.entry.data, stride)


def _buffer(op: BufferOp) -> schema.Buffer:
    match op.kind.data:
        case "arena":
            if op.offset is None:
                raise InternalError("an arena buffer has no offset; run plan-memory")
            return schema.ArenaBuffer(_scalar(op.offset.data), _scalar(op.nbytes.data))
        case "weight":
            assert op.entry is not None
            return schema.WeightBuffer(op.entry.data)
        case "input":
            assert op.index is not None
            return schema.InputBuffer(op.index.value.data)
        case _:
            assert op.index is not None
            return schema.OutputBuffer(op.index.value.data, None if op.over is None else op.over.value.data)


def _launch(op: LaunchOp, numbers: Mapping[SSAValue, int]) -> schema.Launch:
    buffers = iter(op.buffers)
    args: list[schema.Arg] = []
    for slot in op.slots:
        match slot:
            case BufferArgAttr():
                args.append(schema.BufferArg(numbers[next(buffers)], _scalar(slot.offset.data)))
            case FloatAttr():
                args.append(schema.F32Arg(slot.value.data))
            case StringAttr():
                args.append(schema.IntArg(_scalar(slot.data)))
            case _:
                raise InternalError(f"launch slot {slot}")
    repeat = None if op.loop is None else schema.Repeat(op.loop[0], _scalar(op.loop[1]))
    return schema.Launch(
        repeat=repeat,
        kernel=op.kernel.string_value(),
        args=tuple(args),
        work=_scalar(op.work.data),
        grain=op.grain.value.data,
        effort=None if op.effort is None else _scalar(op.effort.data),
        label=" + ".join(node_names(op)),
        barrier=op.concurrent is None,
    )


def _host_segment(op: func.FuncOp) -> schema.HostSegment:
    inputs, outputs = function_names(op)
    return schema.HostSegment(f"program/{op.sym_name.data}.onnx", inputs, outputs)


def _schedule(main: func.FuncOp, segments: Mapping[str, schema.Segment]) -> schema.Program:
    inputs, outputs = function_names(main)
    arguments = list(main.body.block.args)
    *calls, last = main.body.block.ops
    if not isinstance(last, func.ReturnOp):
        raise InternalError("@main does not end in func.return")
    names: dict[SSAValue, str] = dict(zip(arguments, inputs, strict=True))
    for value, name in zip(last.arguments, outputs, strict=True):
        if value in names:
            raise InternalError(f"output {name!r} is another name of {names[value]!r}")
        if name not in inputs:
            # In ONNX an output with an input's name is that input, which needs no step to make it.
            names[value] = name
    steps: list[schema.ScheduleStep] = []
    for call in calls:
        if not isinstance(call, func.CallOp | CallOp):
            raise InternalError(f"{call.name} in @main, which only calls segments")
        for result in call.results:
            names.setdefault(result, f"%{len(names)}")
        steps.append(
            schema.ScheduleStep(
                call.callee.string_value(),
                tuple(names[value] for value in call.operands),
                tuple(names[value] for value in call.results),
            )
        )
    bounds = [None if bound is None else schema.IndexBound(*bound) for bound in index_bounds(main)]
    named = [_io(value.type, name) for value, name in zip(arguments, inputs, strict=True)]
    return schema.Program(
        inputs=tuple(replace(spec, index=bound) for spec, bound in zip(named, bounds, strict=True)),
        outputs=tuple(_output(v.type, n) for v, n in zip(last.arguments, outputs, strict=True)),
        segments=segments,
        schedule=tuple(steps),
    )


def _output(type_: Attribute, name: str) -> schema.IoSpec:
    if isinstance(type_, UnrankedTensorType):
        dtype = numpy_dtype(type_.element_type)
        if dtype is not None:
            return schema.IoSpec(dtype.name, (), name, ranked=False)
    return _io(type_, name)


def _io(type_: Attribute, name: str = "") -> schema.IoSpec:
    dtype = numpy_dtype(element_of(type_))
    if dtype is None:
        raise InternalError(f"{type_} at the border of a segment")
    return schema.IoSpec(dtype.name, tuple(_scalar(str(d)) for d in dims_of(type_)), name)


def _scalar(text: str) -> schema.Scalar:
    dim = Dim.parse(text)
    return dim.value if dim.is_static else str(dim)

"""Lower one function of tensor operations to launches and run them one by one, without a runtime; for tests only.

Every buffer is its own piece of memory between guard bytes, and arena buffers start out as rubbish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np
from xdsl.dialects import func, llvm
from xdsl.dialects.builtin import FloatAttr, ModuleOp, StringAttr
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from aarch64 import run_on_aarch64
from kernel_harness import LoadedKernel, assert_guards, guarded
from neuc.backends.cpu.isa import Isa
from neuc.backends.cpu.lowering import lower_segment, unsupported_reason
from neuc.dialects.cpu import CheckOp, ExpectOp, ProgramOp, RequireOp
from neuc.dialects.cpu_launch import BufferArgAttr, BufferOp, LaunchOp
from neuc.dialects.dims import Dim
from neuc.dialects.interp.core import interpret
from neuc.dialects.store import dims_of, element_of, numpy_dtype
from neuc.dialects.weight_store import WeightStore

_loaded: dict[tuple[str, Isa], LoadedKernel] = {}
_RUBBISH = 0xA5


def function_of(
    inputs: Sequence[Attribute], build: Callable[[Sequence[SSAValue]], Sequence[Operation]], results: int | None = None
) -> func.FuncOp:
    """A function ``main`` of what `build` makes of its arguments; it returns the last operation's results.

    Args:
        inputs: the argument types.
        build: from the arguments to the operations, in order.
        results: return only so many of the last operation's results.
    """
    block = Block(arg_types=inputs)
    ops = list(build(block.args))
    returned = list(ops[-1].results)[:results]
    block.add_ops([*ops, func.ReturnOp(*returned)])
    return func.FuncOp("main", (list(inputs), [v.type for v in returned]), Region(block))


def bind(types: Sequence[Attribute], arrays: Sequence[np.ndarray]) -> dict[str, int]:
    """The symbols of argument types, from the arrays' shapes."""
    symbols: dict[str, int] = {}
    for type_, array in zip(types, arrays, strict=True):
        for dim, size in zip(dims_of(type_), array.shape, strict=True):
            if dim.symbols == {str(dim)}:
                symbols[str(dim)] = size
    return symbols


def run_segment(
    function: func.FuncOp, arrays: Sequence[np.ndarray], isa: Isa, store: WeightStore, *, threads_split: int = 3
) -> list[np.ndarray]:
    """Lower `function` for `isa` and run its launches; the results."""
    for op in function.body.block.ops:
        if not isinstance(op, func.ReturnOp):
            reason = unsupported_reason(op)
            assert reason is None, reason
    symbols = bind([a.type for a in function.body.block.args], arrays)
    kernels: dict[str, llvm.FuncOp] = {}
    program = lower_segment(function, isa, store, kernels)
    program.verify()
    memory: dict[SSAValue, tuple[np.ndarray, np.ndarray]] = {}
    outputs: dict[int, np.ndarray] = {}
    for op, known in _in_order(program, symbols):
        match op:
            case BufferOp():
                memory[op.result] = _allocate(op, arrays, symbols, store)
                if op.kind.data == "output":
                    assert op.index is not None
                    outputs[op.index.value.data] = memory[op.result][0]
            case LaunchOp():
                kept = {buffer: memory[buffer][0].copy() for buffer in set(op.buffers) - op.written()}
                _launch(op, kernels, memory, known, isa, threads_split)
                for _, whole in memory.values():
                    assert_guards(whole)
                for buffer, content in kept.items():
                    np.testing.assert_array_equal(memory[buffer][0], content, "written, but not declared")
            case CheckOp():
                _check(op, kernels, isa, store)
            case RequireOp():
                assert Dim.parse(op.zero.data).evaluate(symbols) == 0, op
            case _:
                raise AssertionError(op)
    results: list[np.ndarray] = []
    for index, type_ in enumerate(function.function_type.outputs):
        dtype = numpy_dtype(element_of(type_))
        assert dtype is not None
        shape = [d.evaluate(symbols) for d in dims_of(type_)]
        results.append(outputs[index].view(dtype).reshape(shape))
    return results


def _in_order(program: ProgramOp, symbols: dict[str, int]) -> Iterator[tuple[Operation, dict[str, int]]]:
    """Everything but launches, then these as they run, loops run out: each with the symbols it sees."""
    yield from ((op, symbols) for op in program.body.block.ops if not isinstance(op, LaunchOp))
    launches = [op for op in program.body.block.ops if isinstance(op, LaunchOp)]
    for loop, body in groupby(launches, lambda launch: launch.loop):
        one = list(body)
        if loop is None:
            yield from ((op, symbols) for op in one)
        else:
            steps = Dim.parse(loop[1]).evaluate(symbols)
            yield from ((op, {**symbols, loop[0]: step}) for step in range(steps) for op in one)


def expected_of(function: func.FuncOp, arrays: Sequence[np.ndarray], store: WeightStore) -> list[np.ndarray]:
    """What the interpreter says the function gives."""
    return interpret(ModuleOp([function.clone()]), arrays, store)


def _check(op: CheckOp, kernels: dict[str, llvm.FuncOp], isa: Isa, store: WeightStore) -> None:
    """A check of kernels must hold, and its kernels must stay within its buffers."""
    memory: dict[SSAValue, tuple[np.ndarray, np.ndarray]] = {}
    for inner in op.body.block.ops:
        match inner:
            case BufferOp():
                memory[inner.result] = _allocate(inner, [], {}, store)
            case LaunchOp():
                _launch(inner, kernels, memory, {}, isa, 1)
                for _, whole in memory.values():
                    assert_guards(whole)
            case ExpectOp():
                expected, stride = store.get(inner.entry.data), inner.stride.value.data
                got = memory[inner.buffer][0].view(np.int32)
                assert expected.size
                for row, wanted in enumerate(expected):
                    np.testing.assert_array_equal(got[row * stride : row * stride + len(wanted)], wanted)
            case _:
                raise AssertionError(inner)


def _allocate(
    op: BufferOp, arrays: Sequence[np.ndarray], symbols: dict[str, int], store: WeightStore
) -> tuple[np.ndarray, np.ndarray]:
    nbytes = Dim.parse(op.nbytes.data).evaluate(symbols)
    match op.kind.data:
        case "input":
            assert op.index is not None
            content = np.ascontiguousarray(arrays[op.index.value.data]).reshape(-1).view(np.uint8)
        case "weight":
            assert op.entry is not None
            content = np.ascontiguousarray(store.get(op.entry.data)).reshape(-1).view(np.uint8)
        case _:
            content = np.full(nbytes, _RUBBISH, np.uint8)
    assert content.nbytes == nbytes
    return guarded(content)


def _launch(
    op: LaunchOp,
    kernels: dict[str, llvm.FuncOp],
    memory: dict[SSAValue, tuple[np.ndarray, np.ndarray]],
    symbols: dict[str, int],
    isa: Isa,
    threads_split: int,
) -> None:
    name = op.kernel.root_reference.data
    buffers = iter(op.buffers)
    args: list[np.ndarray | int | float] = []
    for slot in op.slots:
        match slot:
            case BufferArgAttr():
                args.append(memory[next(buffers)][0][Dim.parse(slot.offset.data).evaluate(symbols) :])
            case StringAttr():
                args.append(Dim.parse(slot.data).evaluate(symbols))
            case FloatAttr():
                args.append(slot.value.data)
            case _:
                raise AssertionError(slot)
    work = Dim.parse(op.work.data).evaluate(symbols)
    scratch = Dim.parse(op.scratch.data).evaluate(symbols)
    if isa.arch == "aarch64":
        run_on_aarch64(kernels[name], isa, args, work, threads_split=threads_split, scratch_bytes=scratch)
        return
    if (name, isa) not in _loaded:
        _loaded[name, isa] = LoadedKernel(kernels[name], isa)
    _loaded[name, isa](args, work, threads_split=threads_split, scratch_bytes=scratch)

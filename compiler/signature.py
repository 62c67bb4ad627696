"""The inputs and outputs of a module's `@main`, as the runtime describes those of a program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, UnrankedTensorType
from xdsl.ir import Attribute, BlockArgument, OpResult, SSAValue

from neuc.dialects.onnx import function_names
from neuc.dialects.store import dims_of, element_of, numpy_dtype
from neuc.errors import Error
from neuc.passes.analysis.index_bounds import index_bounds
from neuc.runtime.program import IndexBound, IoSpec

ENTRY = "main"


def entry_of(module: ModuleOp) -> func.FuncOp:
    """The entry function.

    Raises:
        Error: NEUC-E254, the module has none.
    """
    for op in module.ops:
        if isinstance(op, func.FuncOp) and op.sym_name.data == ENTRY:
            return op
    raise Error("NEUC-E254", "the module has no function @main", hint="a neuc module runs from func.func @main")


def check_names(module: ModuleOp) -> None:
    """Refuse text whose `@main` gives one name to two values: a run would give one in place of the other.

    An output that is an input, handed through, may have its name.

    Raises:
        Error: NEUC-E251.
    """
    functions = {op.sym_name.data: op for op in module.ops if isinstance(op, func.FuncOp)}
    if (entry := functions.get(ENTRY)) is not None and not entry.is_declaration:
        inputs, outputs = function_names(entry)
        returned = entry.get_return_op()
        if returned is None:
            return
        values = dict(zip(inputs, entry.body.block.args))
        wrong = [name for name in values if inputs.count(name) > 1]
        wrong += [name for name in outputs if outputs.count(name) > 1]
        sources = [_handed_through(value, functions) for value in returned.operands]
        wrong += [name for name, value in zip(outputs, sources) if name in values and values[name] is not value]
        if wrong:
            raise Error(
                "NEUC-E251",
                f"two inputs or outputs of @main have the name {wrong[0]!r}",
                hint="give each a name of its own in onnx.name",
            )


def _handed_through(value: SSAValue, functions: Mapping[str, func.FuncOp]) -> SSAValue:
    """What the caller gave, if `value` is a result of a call to a segment that returns one of its inputs."""
    call = value.owner
    segment = functions.get(call.callee.root_reference.data) if isinstance(call, func.CallOp) else None
    returned = None if segment is None or segment.is_declaration else segment.get_return_op()
    if not isinstance(value, OpResult) or returned is None:
        return value
    inner = returned.operands[value.index]
    return value.op.operands[inner.index] if isinstance(inner, BlockArgument) else value


def signature_of(module: ModuleOp) -> tuple[list[IoSpec], list[IoSpec]]:
    """Inputs and outputs of `@main`.

    Raises:
        Error: NEUC-E254, no entry; NEUC-E255, an input or output is no tensor of numbers, or an input has no rank.
    """
    entry = entry_of(module)
    inputs, outputs = function_names(entry)
    type_ = entry.function_type
    bounds = [None if bound is None else IndexBound(*bound) for bound in index_bounds(entry)]
    ranked = [replace(spec, index=bound) for spec, bound in zip(_specs(inputs, type_.inputs.data), bounds)]
    return ranked, [_output(name, output) for name, output in zip(outputs, type_.outputs.data, strict=True)]


def _output(name: str, type_: Attribute) -> IoSpec:
    if isinstance(type_, UnrankedTensorType):  # of a host segment: only a run can tell
        dtype = numpy_dtype(type_.element_type)
        if dtype is not None:
            return IoSpec(dtype.name, (), name, ranked=False)
    return _specs([name], [type_])[0]


def _specs(names: Iterable[str], types: Sequence[Attribute]) -> list[IoSpec]:
    specs: list[IoSpec] = []
    for name, type_ in zip(names, types, strict=True):
        try:
            dtype = numpy_dtype(element_of(type_))
            dims = dims_of(type_)
        except ValueError as error:
            raise _no_tensor(name, type_) from error
        if dtype is None:
            raise _no_tensor(name, type_)
        shape = tuple(dim.value if dim.is_static else str(dim) for dim in dims)
        specs.append(IoSpec(dtype.name, shape, name))
    return specs


def _no_tensor(name: str, type_: Attribute) -> Error:
    return Error(
        "NEUC-E255",
        f"input or output {name!r} has type {type_}",
        hint="models take and give tensors of numbers with a known rank",
    )

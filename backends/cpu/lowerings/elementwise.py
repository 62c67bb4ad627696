"""`dense.map`: the region becomes a kernel body, the operands' shapes a collapsed iteration space."""

from __future__ import annotations

from xdsl.dialects import arith
from xdsl.dialects.builtin import FloatAttr, IntegerAttr
from xdsl.ir import Attribute, Block, Operation, SSAValue

from neuc.backends.cpu.kernels.map import MapKernel
from neuc.backends.cpu.kernels.map_body import CMPF, CMPI, Instr, unsupported
from neuc.backends.cpu.kernels.strided import STORAGE
from neuc.backends.cpu.lowering import SegmentLowering, lowers
from neuc.backends.cpu.lowerings.iteration import broadcast_strides, collapse, contiguous_strides
from neuc.dialects.dense import MapOp, YieldOp
from neuc.dialects.store import dims_of, element_of, numpy_dtype

GRAIN = 4096
"""Elements a thread takes at least: fewer are done sooner than another thread wakes."""


def dtype_name(element: Attribute) -> str | None:
    """The kernels' name of an element type (``f32``, ``u8``, ``i1`` …); None if they have none."""
    dtype = numpy_dtype(element)
    if dtype is None:
        return None
    name = "i1" if dtype.kind == "b" else f"{dtype.kind}{8 * dtype.itemsize}"
    return name if name in STORAGE else None


def read_body(block: Block) -> tuple[tuple[Instr, ...], int] | str:
    """A body's instructions and the number of the yielded value, or why there is no kernel for them."""
    numbers: dict[SSAValue, int] = {}
    types: list[str] = []
    for argument in block.args:
        name = dtype_name(argument.type)
        if name is None:
            return f"a map over {argument.type} has no CPU kernel"
        numbers[argument] = len(types)
        types.append(name)
    body: list[Instr] = []
    for scalar in block.ops:
        if isinstance(scalar, YieldOp):
            return tuple(body), numbers[scalar.value]
        instr = _instruction(scalar, numbers)
        if isinstance(instr, str):
            return instr
        if (reason := unsupported(instr, [types[i] for i in instr.args])) is not None:
            return reason
        numbers[scalar.results[0]] = len(types)
        types.append(instr.type)
        body.append(instr)
    return "the map's body has no dense.yield"


def _instruction(scalar: Operation, numbers: dict[SSAValue, int]) -> Instr | str:
    name = dtype_name(scalar.results[0].type)
    if name is None:
        return f"{scalar.name} giving {scalar.results[0].type} has no CPU kernel"
    detail = ""
    match scalar:
        case arith.ConstantOp(value=FloatAttr() as value):
            detail = float(value.value.data).hex()
        case arith.ConstantOp(value=IntegerAttr() as value):
            detail = str(value.value.data)
        case arith.CmpfOp():
            detail = CMPF[scalar.predicate.value.data]
        case arith.CmpiOp():
            detail = CMPI[scalar.predicate.value.data]
        case _:
            pass
    return Instr(scalar.name, tuple(numbers[v] for v in scalar.operands), name, detail)


def supports_map(op: MapOp) -> str | None:
    """Why this map has no kernel; None if it has."""
    body = read_body(op.body.block)
    return body if isinstance(body, str) else None


@lowers(MapOp, supports=supports_map)
def lower_map(op: MapOp, s: SegmentLowering) -> None:
    """One launch; equal bodies over equal kinds of operands share a kernel."""
    found = read_body(op.body.block)
    assert not isinstance(found, str)
    body, result = found
    dims = dims_of(op.result)
    strides = [broadcast_strides(dims_of(v), dims) for v in op.inputs]
    space = collapse(dims, [*strides, contiguous_strides(dims)])
    inputs = [dtype_name(element_of(v)) for v in op.inputs]
    output = dtype_name(element_of(op.result))
    assert output is not None
    kernel = MapKernel(
        inputs=tuple(name for name in inputs if name is not None),
        output=output,
        body=body,
        result=result,
        rank=len(space.dims),
        inner=space.inner()[: len(inputs)],
    )
    own = space.strides[: len(inputs)]
    s.launch(
        kernel,
        [
            *(s.buffer(v) for v in op.inputs),
            s.buffer(op.result),
            *space.dims,
            *(stride for strides in own for stride in strides),
        ],
        work=space.size,
        grain=GRAIN,
        op=op,
    )

"""The `cpu` dialect: a segment as a schedule of kernel launches over planned buffers.

A `cpu.program` holds `cpu.buffer`, `cpu.launch`, `cpu.require` and `cpu.check` ops; kernels are `llvm.func`s beside it
with the signature ``(%args: !llvm.ptr, %begin: i64, %end: i64, %scratch: !llvm.ptr)``. Sizes and offsets are dim
expressions over the program's symbols. Buffers and launches themselves stand in `cpu_launch.py`; how kernels look
inside is not this file's business.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import (
    ArrayAttr,
    IntegerAttr,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
    i64,
)
from xdsl.ir import Attribute, Dialect, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import IsolatedFromAbove, NoTerminator, SymbolOpInterface
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.cpu_launch import BufferArgAttr, BufferOp, BufferType, LaunchOp, check_expr
from neuc.dialects.dims import Dim, DimLike


@irdl_op_definition
class RequireOp(IRDLOperation):
    """The program runs only for sizes that make `zero` 0: what could not be decided when shapes were checked."""

    name = "cpu.require"
    zero = prop_def(StringAttr)

    assembly_format = "$zero `is` `zero` attr-dict"

    def __init__(self, zero: DimLike) -> None:
        super().__init__(properties={"zero": StringAttr(str(Dim.of(zero)))})

    def verify_(self) -> None:
        check_expr(self.zero.data, "requirement")


@irdl_op_definition
class ExpectOp(IRDLOperation):
    """The end of a `cpu.check`: row i of the weight `entry` (int32 [n, m]) is in `buffer` at int32 number i·stride."""

    name = "cpu.expect"
    buffer = operand_def(BufferType)
    entry = prop_def(StringAttr)
    stride = prop_def(IntegerAttr.constr(i64))

    assembly_format = "$buffer `is` $entry `stride` $stride attr-dict"

    def __init__(self, buffer: SSAValue, entry: str, stride: int) -> None:
        properties: dict[str, Attribute] = {"entry": StringAttr(entry), "stride": IntegerAttr(stride, i64)}
        super().__init__(operands=[buffer], properties=properties)


@irdl_op_definition
class CheckOp(IRDLOperation):
    """Kernels that are tried before the program runs for the first time, on data whose result is known.

    Buffers and launches of the body are the check's own; sizes in it are plain integers.
    """

    name = "cpu.check"
    body = region_def("single_block")

    traits = traits_def(IsolatedFromAbove(), NoTerminator())
    assembly_format = "attr-dict-with-keyword $body"

    def __init__(self, body: Region) -> None:
        super().__init__(regions=[body])

    @property
    def expectation(self) -> ExpectOp:
        """The last operation."""
        last = self.body.block.last_op
        assert isinstance(last, ExpectOp)
        return last

    def verify_(self) -> None:
        ops = list(self.body.block.ops)
        if not ops or not isinstance(ops[-1], ExpectOp):
            raise VerifyException("a check ends in cpu.expect")
        for op in ops[:-1]:
            match op:
                case BufferOp() if op.kind.data in ("arena", "weight") and op.offset is None:
                    sizes = [op.nbytes]
                case BufferOp():
                    raise VerifyException("buffers of a check are weights, or arena buffers without an offset")
                case LaunchOp():
                    slots = (slot.offset if isinstance(slot, BufferArgAttr) else slot for slot in op.slots)
                    sizes = [op.work, op.scratch, *(slot for slot in slots if isinstance(slot, StringAttr))]
                case _:
                    raise VerifyException(f"{op.name} in a cpu.check: only cpu.buffer and cpu.launch may stand here")
            for size in sizes:
                if not Dim.parse(size.data).is_static:
                    raise VerifyException(f"size {size.data!r} in a cpu.check is no plain integer")


@irdl_op_definition
class CallOp(IRDLOperation):
    """Run a `cpu.program` on tensors: what `@main`'s call of a segment becomes when the segment is lowered."""

    name = "cpu.call"
    callee = prop_def(SymbolRefAttr)
    args = var_operand_def()
    res = var_result_def()

    assembly_format = "$callee `(` $args `)` attr-dict `:` functional-type($args, $res)"

    def __init__(self, callee: str, args: Sequence[SSAValue], results: Sequence[Attribute]) -> None:
        super().__init__(operands=[args], result_types=[results], properties={"callee": SymbolRefAttr(callee)})


@irdl_op_definition
class ProgramOp(IRDLOperation):
    """A segment ready to run: buffers and launches, in order, and what its sizes have to fulfil."""

    name = "cpu.program"
    sym_name = prop_def(SymbolNameConstraint())
    inputs = prop_def(ArrayAttr)
    outputs = prop_def(ArrayAttr)
    arena = opt_prop_def(StringAttr)
    body = region_def("single_block")

    traits = traits_def(IsolatedFromAbove(), SymbolOpInterface(), NoTerminator())
    assembly_format = "$sym_name `inputs` $inputs `outputs` $outputs (`arena` $arena^)? attr-dict-with-keyword $body"

    def __init__(self, name: str, inputs: Sequence[Attribute], outputs: Sequence[Attribute], body: Region) -> None:
        super().__init__(
            properties={
                "sym_name": StringAttr(name),
                "inputs": ArrayAttr(inputs),
                "outputs": ArrayAttr(outputs),
            },
            regions=[body],
        )

    def verify_(self) -> None:
        for op in self.body.block.ops:
            if not isinstance(op, BufferOp | LaunchOp | RequireOp | CheckOp):
                known = "cpu.buffer, cpu.launch, cpu.require and cpu.check"
                raise VerifyException(f"{op.name} in a cpu.program: only {known} may stand here")
        if self.arena is not None:
            check_expr(self.arena.data, "arena")


Cpu = Dialect("cpu", [BufferOp, LaunchOp, RequireOp, ExpectOp, CheckOp, CallOp, ProgramOp], [BufferType, BufferArgAttr])

"""The `npu` dialect: a dataflow graph of kernels, channels and memory-tile links, and the host's sequence for it.

`npu.graph` holds everything; its parts name each other by symbols. What passes decide (tiles, pools with addresses and
locks, DMA ends with buffer descriptors, circuits) are attributes of the parts. Meaning: `dialects/interp/npu.py`. What
has to agree between parts is checked in `npu_verify.py`; what a machine allows is no business of the dialect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    IntegerAttr,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
    TensorType,
    UnitAttr,
    i64,
)
from xdsl.ir import Attribute, Dialect, Operation, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    opt_prop_def,
    prop_def,
    region_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import IsolatedFromAbove, NoTerminator, SymbolOpInterface, SymbolTable
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.npu_attrs import CircuitAttr, DmaAttr, NumbersAttr, PoolAttr, names, numbers
from neuc.dialects.npu_finish import FinishOp
from neuc.dialects.npu_products import GroupedAccumulateOp, MatmulOp, RequantizeOp
from neuc.dialects.npu_residual import AddCodesOp
from neuc.dialects.npu_rows import ChainOp, LayerNormOp, SoftmaxOp
from neuc.dialects.npu_windows import WindowsOp

LINK_MODES = ("forward", "split", "join", "broadcast")
OpT = TypeVar("OpT", bound=Operation)


class _Part(IRDLOperation):
    """A part of a graph, known by its symbol."""

    def graph(self) -> GraphOp:
        """The graph it belongs to."""
        parent = self.parent_op()
        if not isinstance(parent, GraphOp):
            raise VerifyException(f"{self.name} belongs into an npu.graph")
        return parent


@irdl_op_definition
class GraphOp(IRDLOperation):
    """A dataflow program: parts in any order, at most one npu.sequence, for one machine."""

    name = "npu.graph"
    sym_name = prop_def(SymbolNameConstraint())
    machine = prop_def(StringAttr)
    body = region_def("single_block")

    traits = traits_def(IsolatedFromAbove(), NoTerminator(), SymbolOpInterface(), SymbolTable())
    assembly_format = "$sym_name `on` $machine attr-dict-with-keyword $body"

    def parts(self, kind: type[OpT]) -> list[OpT]:
        """The parts of one kind, in order."""
        return [op for op in self.body.block.ops if isinstance(op, kind)]

    def verify_(self) -> None:
        from neuc.dialects.npu_verify import verify_graph

        verify_graph(self)  # pyright: ignore[reportArgumentType] - it knows this file by two names


@irdl_op_definition
class KernelOp(_Part):
    """In phase p: takes consume[i][p] tokens of inputs[i], gives produce[j][p] tokens of function to outputs[j]."""

    name = "npu.kernel"
    sym_name = prop_def(SymbolNameConstraint())
    function = prop_def(StringAttr)
    inputs = prop_def(ArrayAttr[SymbolRefAttr])
    outputs = prop_def(ArrayAttr[SymbolRefAttr])
    consume = prop_def(ArrayAttr[NumbersAttr])
    produce = prop_def(ArrayAttr[NumbersAttr])
    cycles = prop_def(NumbersAttr)
    params = prop_def(DictionaryAttr)
    state_bytes = prop_def(IntegerAttr.constr(i64))
    program_bytes = prop_def(IntegerAttr.constr(i64))
    tile = opt_prop_def(NumbersAttr)
    pinned = opt_prop_def(UnitAttr)

    traits = traits_def(SymbolOpInterface())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$sym_name $function $inputs $consume `->` $outputs $produce `cycles` $cycles $params attr-dict"

    def verify_(self) -> None:
        self.graph()
        phases = len(numbers(self.cycles))
        if phases < 1 or min(numbers(self.cycles)) < 0:
            raise VerifyException(f"{self.sym_name.data} needs one number of cycles (0 or more) a phase")
        for what, ends, rates in (("inputs", self.inputs, self.consume), ("outputs", self.outputs, self.produce)):
            if len(ends) != len(rates):
                raise VerifyException(f"{self.sym_name.data}: {len(ends)} {what}, but rates for {len(rates)}")
            for ref, rate in zip(names(ends), rates):
                if len(numbers(rate)) != phases or min(numbers(rate)) < 0 or not any(numbers(rate)):
                    raise VerifyException(
                        f"{self.sym_name.data}: impossible rate {list(numbers(rate))} on @{ref}: one number (0 or more,"
                        f" not all 0) for each of {phases} phases"
                    )
        if not len(self.inputs) and not len(self.outputs):
            raise VerifyException(f"{self.sym_name.data} has neither inputs nor outputs")


@irdl_op_definition
class ChannelOp(_Part):
    """An object FIFO: tokens of `type`, in order, from producer to every consumer, `depth` buffers at each end."""

    name = "npu.channel"
    sym_name = prop_def(SymbolNameConstraint())
    producer = prop_def(SymbolRefAttr)
    consumers = prop_def(ArrayAttr[SymbolRefAttr])
    depth = prop_def(IntegerAttr.constr(i64))
    type = prop_def(StringAttr)
    shape = prop_def(NumbersAttr)
    layout = opt_prop_def(ArrayAttr[NumbersAttr])
    shared = opt_prop_def(NumbersAttr)
    pools = opt_prop_def(ArrayAttr[PoolAttr])
    dmas = opt_prop_def(ArrayAttr[DmaAttr])
    route = opt_prop_def(ArrayAttr[CircuitAttr])

    traits = traits_def(SymbolOpInterface())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$sym_name $producer `->` $consumers `depth` $depth $type $shape attr-dict"

    def verify_(self) -> None:
        self.graph()
        if self.depth.value.data < 1:
            raise VerifyException(
                f"channel {self.sym_name.data} has depth {self.depth.value.data}; it needs at least 1"
            )
        if not len(self.consumers):
            raise VerifyException(f"channel {self.sym_name.data} has no consumer")
        if min(numbers(self.shape), default=1) < 1:
            raise VerifyException(f"channel {self.sym_name.data} carries empty tokens {list(numbers(self.shape))}")


@irdl_op_definition
class LinkOp(_Part):
    """A memory tile's buffers between channels: each is filled by the inputs and sent `repeat` times to the outputs."""

    name = "npu.link"
    sym_name = prop_def(SymbolNameConstraint())
    mode = prop_def(StringAttr)
    inputs = prop_def(ArrayAttr[SymbolRefAttr])
    outputs = prop_def(ArrayAttr[SymbolRefAttr])
    offsets = prop_def(NumbersAttr)
    repeat = prop_def(IntegerAttr.constr(i64))
    depth = prop_def(IntegerAttr.constr(i64))
    tile = opt_prop_def(NumbersAttr)
    pinned = opt_prop_def(UnitAttr)
    pools = opt_prop_def(ArrayAttr[PoolAttr])

    traits = traits_def(SymbolOpInterface())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$sym_name $mode $inputs `->` $outputs $offsets `repeat` $repeat `depth` $depth attr-dict"

    def verify_(self) -> None:
        self.graph()
        what = f"link {self.sym_name.data}"
        if self.mode.data not in LINK_MODES:
            raise VerifyException(f"{what}: mode {self.mode.data!r} is none of {', '.join(LINK_MODES)}")
        if self.repeat.value.data < 1 or self.depth.value.data < 1:
            raise VerifyException(f"{what}: repeat and depth are at least 1")
        if self.mode.data != "join" and len(self.inputs) != 1:
            raise VerifyException(f"{what}: {self.mode.data} takes one input, got {len(self.inputs)}")
        if self.mode.data in ("join", "forward") and len(self.outputs) != 1:
            raise VerifyException(f"{what}: {self.mode.data} has one output, got {len(self.outputs)}")
        parts = {"split": len(self.outputs), "join": len(self.inputs)}.get(self.mode.data, 0)
        if not len(self.outputs) or len(numbers(self.offsets)) != parts:
            raise VerifyException(f"{what}: {self.mode.data} needs an output, and {parts} offsets")


@irdl_op_definition
class PortOp(_Part):
    """Where a channel meets host memory (a shim tile's DMA): `in` from the host, `out` to it."""

    name = "npu.port"
    sym_name = prop_def(SymbolNameConstraint())
    direction = prop_def(StringAttr)
    channel = prop_def(SymbolRefAttr)
    tile = opt_prop_def(NumbersAttr)
    pinned = opt_prop_def(UnitAttr)

    traits = traits_def(SymbolOpInterface())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$sym_name $direction $channel attr-dict"

    def verify_(self) -> None:
        self.graph()
        if self.direction.data not in ("in", "out"):
            raise VerifyException(f"port {self.sym_name.data}: direction {self.direction.data!r} is neither in nor out")


@irdl_op_definition
class BufferOp(_Part):
    """An array in host memory; its role is input, output or weight."""

    name = "npu.buffer"
    sym_name = prop_def(SymbolNameConstraint())
    role = prop_def(StringAttr)
    type = prop_def(StringAttr)
    shape = prop_def(NumbersAttr)

    traits = traits_def(SymbolOpInterface())
    assembly_format = "$sym_name $role $type $shape attr-dict"

    def verify_(self) -> None:
        self.graph()
        if self.role.data not in ("input", "output", "weight"):
            raise VerifyException(
                f"buffer {self.sym_name.data}: role {self.role.data!r} is none of input, output, weight"
            )


@irdl_op_definition
class ParamOp(_Part):
    """A run-time parameter of a kernel: it has `value` until the sequence sets another."""

    name = "npu.param"
    sym_name = prop_def(SymbolNameConstraint())
    kernel = prop_def(SymbolRefAttr)
    value = prop_def(IntegerAttr.constr(i64))

    traits = traits_def(SymbolOpInterface())
    assembly_format = "$sym_name `of` $kernel `=` $value attr-dict"

    def verify_(self) -> None:
        self.graph()


@irdl_op_definition
class SequenceOp(_Part):
    """What the host does, in order: npu.transfer, npu.wait, npu.set_param."""

    name = "npu.sequence"
    body = region_def("single_block")

    traits = traits_def(NoTerminator())
    assembly_format = "$body attr-dict"

    def verify_(self) -> None:
        self.graph()
        for op in self.body.block.ops:
            if not isinstance(op, TransferOp | WaitOp | SetParamOp):
                raise VerifyException(f"{op.name} is no step of a sequence")


@irdl_op_definition
class TransferOp(IRDLOperation):
    """Queue on a port: elements offset + Σ index·stride of a buffer, the last index fastest."""

    name = "npu.transfer"
    port = prop_def(SymbolRefAttr)
    buffer = prop_def(SymbolRefAttr)
    offset = prop_def(IntegerAttr.constr(i64))
    sizes = prop_def(NumbersAttr)
    strides = prop_def(NumbersAttr)

    assembly_format = "$port $buffer $offset `sizes` $sizes `strides` $strides attr-dict"

    def verify_(self) -> None:
        if len(numbers(self.sizes)) != len(numbers(self.strides)):
            raise VerifyException("a transfer has one stride for each size")
        if min(numbers(self.sizes), default=1) < 1:
            raise VerifyException(f"a transfer of sizes {list(numbers(self.sizes))} moves nothing")


@irdl_op_definition
class WaitOp(IRDLOperation):
    """Until every task queued on the port is done."""

    name = "npu.wait"
    port = prop_def(SymbolRefAttr)
    assembly_format = "$port attr-dict"


@irdl_op_definition
class SetParamOp(IRDLOperation):
    """Write a run-time parameter."""

    name = "npu.set_param"
    param = prop_def(SymbolRefAttr)
    value = prop_def(IntegerAttr.constr(i64))
    assembly_format = "$param `=` $value attr-dict"


@irdl_op_definition
class RunOp(IRDLOperation):
    """Run a graph once: operands are its buffers of role input and weight, results those of role output, in order."""

    name = "npu.run"
    graph = prop_def(SymbolRefAttr)
    arrays = var_operand_def(TensorType)
    outputs = var_result_def(TensorType)

    assembly_format = "$graph `(` $arrays `)` attr-dict `:` functional-type(operands, results)"

    def __init__(self, graph: str, arrays: Sequence[SSAValue], outputs: Sequence[Attribute]) -> None:
        super().__init__(
            operands=[list(arrays)], result_types=[list(outputs)], properties={"graph": SymbolRefAttr(graph)}
        )


Npu = Dialect(
    "npu",
    [
        GraphOp,
        KernelOp,
        ChannelOp,
        LinkOp,
        PortOp,
        BufferOp,
        ParamOp,
        SequenceOp,
        TransferOp,
        WaitOp,
        SetParamOp,
        RunOp,
        MatmulOp,
        RequantizeOp,
        FinishOp,
        AddCodesOp,
        GroupedAccumulateOp,
        WindowsOp,
        ChainOp,
        SoftmaxOp,
        LayerNormOp,
    ],
    [NumbersAttr, PoolAttr, DmaAttr, CircuitAttr],
)

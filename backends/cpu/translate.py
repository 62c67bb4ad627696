"""From kernels in xDSL's llvm dialect to LLVM IR text.

xDSL's own converter handles the ops; this file adds the instructions that `neuc.backends.cpu.builder` spells
as ``llvm.call_intrinsic`` of ``llvm.neuc.*`` names, and pointer arithmetic without needless casts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from llvmlite import ir
from xdsl.backend.llvm.convert_op import convert_op
from xdsl.backend.llvm.convert_type import convert_type
from xdsl.dialects import llvm
from xdsl.ir import Block, SSAValue
from xdsl.utils.exceptions import LLVMTranslationException

from neuc.backends.cpu.isa import Isa
from neuc.errors import InternalError

PSEUDO = "llvm.neuc."

# Kernels must not turn into calls of memset or memcpy: objects stay free of outside symbols.
_ATTRIBUTES = ("nounwind", '"no-builtins"')

_FCMP = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_CASTS = ("uitofp", "fptosi", "fptoui")


def to_llvm_ir(functions: Sequence[llvm.FuncOp], isa: Isa) -> str:
    """The text of one LLVM module that holds these functions."""
    module = ir.Module()
    module.triple = isa.triple
    for function in functions:
        name = function.sym_name.data
        try:
            _translate(function, module)
        except (NotImplementedError, LLVMTranslationException) as error:
            raise InternalError(f"kernel {name}: {error}") from error
    return str(module)


def _translate(function: llvm.FuncOp, module: ir.Module) -> None:
    inputs = [convert_type(t) for t in function.function_type.inputs]
    signature = ir.FunctionType(convert_type(function.function_type.output), inputs)
    target = ir.Function(module, signature, function.sym_name.data)
    for attribute in _ATTRIBUTES:
        set.add(target.attributes, attribute)  # llvmlite knows no string attributes
    values: dict[SSAValue, ir.Value] = {}
    blocks: dict[Block, ir.Block] = {}
    for block in function.body.blocks:
        made = blocks[block] = target.append_basic_block()
        if not blocks.keys() - {block}:
            values.update(zip(block.args, target.args))
            continue
        phis = ir.IRBuilder(made)
        for arg in block.args:
            values[arg] = phis.phi(convert_type(arg.type))
    for block, made in blocks.items():
        builder = ir.IRBuilder(made)
        for op in block.ops:
            match op:
                case llvm.CallIntrinsicOp():
                    _intrinsic(op, builder, values)
                case llvm.GEPOp():
                    _address(op, builder, values)
                case _:
                    convert_op(op, builder, values, blocks)


def _address(op: llvm.GEPOp, builder: ir.IRBuilder, values: dict[SSAValue, ir.Value]) -> None:
    dynamic = iter(op.ssa_indices)
    indices = [
        values[next(dynamic)] if index == llvm.GEP_USE_SSA_VAL else ir.Constant(ir.IntType(32), index)
        for index in op.rawConstantIndices.iter_values()
    ]
    values[op.result] = builder.gep(
        values[op.ptr], indices, inbounds=op.inbounds is not None, source_etype=convert_type(op.elem_type)
    )


def _intrinsic(op: llvm.CallIntrinsicOp, builder: ir.IRBuilder, values: dict[SSAValue, ir.Value]) -> None:
    args = [values[arg] for arg in op.args]
    result = ir.VoidType() if op.ress is None else convert_type(op.ress.type)
    name = op.intrin.data
    if name.startswith(PSEUDO):
        if op.ress is None:
            raise InternalError(f"{name} has a result")
        values[op.ress] = _pseudo(name.removeprefix(PSEUDO), builder, args, result)
        return
    module = cast(ir.Module, builder.module)
    callee = module.globals.get(name)
    if callee is None:
        types = [convert_type(arg.type) for arg in op.args]
        callee = ir.Function(module, ir.FunctionType(result, types), name)
    value = builder.call(callee, args)
    if op.ress is not None:
        values[op.ress] = value


def _pseudo(name: str, builder: ir.IRBuilder, args: list[ir.Value], result: ir.Type) -> ir.Value:
    """An instruction that the llvm dialect has no op for."""
    kind, _, detail = name.partition(".")
    match kind, args:
        case "fcmp", [x, y]:
            compare = builder.fcmp_ordered if detail.startswith("o") else builder.fcmp_unordered
            return compare(_FCMP.get(detail[1:], detail), x, y)
        case "select", [cond, x, y]:
            return builder.select(cond, x, y)
        case "extractelement", [vector, lane]:
            return builder.extract_element(vector, lane)
        case _, [x] if kind in _CASTS:
            convert = cast(Callable[[ir.Value, ir.Type], ir.Value], getattr(builder, kind))
            return convert(x, result)
        case _:
            raise InternalError(f"no instruction {PSEUDO}{name} of {len(args)} operands")

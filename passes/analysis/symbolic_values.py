"""Integer tensors of a module whose elements are all known as expressions over symbols, and dims nobody can know."""

from __future__ import annotations

from collections.abc import Mapping

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from neuc.dialects.dims import Dim
from neuc.dialects.store import ConstantOp
from neuc.dialects.weight_store import WeightStore
from neuc.passes.analysis.symbolic_facts import constant_contents, type_shape
from neuc.passes.analysis.symbolic_sweep import sweep


def symbolic_values(module: ModuleOp, store: WeightStore) -> Mapping[SSAValue, tuple[Dim, ...]]:
    """Elements, row-major, of every small integer tensor of which all are known; constants included."""
    found = {
        value: tuple(Dim.of(dim) for dim in contents.reshape(-1))
        for value, contents in sweep(module, store).facts.contents.items()
    }
    for op in module.walk():
        if isinstance(op, ConstantOp) and op.result not in found:
            contents = constant_contents(op, store)
            if contents is not None:
                found[op.result] = tuple(Dim.of(dim) for dim in contents.reshape(-1))
    return found


def unknown_dims(module: ModuleOp) -> Mapping[Operation, tuple[str, ...]]:
    """Operations with a result whose size only running them tells, with the symbols that stand for it.

    Such a symbol occurs in no argument of the function and in no operand. Results of unknown rank count too, with the
    symbol ``?``.
    """
    found: dict[Operation, tuple[str, ...]] = {}
    seen: set[str] = set()
    for op in module.walk():
        for region in op.regions:
            for block in region.blocks:
                for argument in block.args:
                    seen |= _symbols(argument)
        new: set[str] = set()
        for value in op.results:
            new |= _symbols(value) - seen
        if new:
            found[op] = tuple(sorted(new))
            seen |= new - {"?"}
    return found


def _symbols(value: SSAValue) -> set[str]:
    shape = type_shape(value)
    if shape is None:
        return {"?"} if _is_tensor_of_unknown_rank(value) else set()
    return {symbol for dim in shape for symbol in (("?",) if dim is None else dim.symbols)}


def _is_tensor_of_unknown_rank(value: SSAValue) -> bool:
    name = value.type.name
    return name in ("unranked_tensor", "onnx.unknown")

"""What an NPU array does not take, why, and what it would take if it did: notes for the report."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Operation

from neuc.backends.npu.float_convs import conv_obstacle
from neuc.backends.npu.tiling import Product, choose_plans
from neuc.backends.npu.use_bf16 import obstacle
from neuc.dialects import dense
from neuc.dialects.dims import Dim
from neuc.dialects.locations import node_names
from neuc.dialects.store import dims_of
from neuc.dialects.ternary import ConvOp, LinearOp
from neuc.passes.analysis.multiply_adds import multiply_adds
from neuc.passes.module_facts import add_notes
from neuc.runtime.npu.machine import Machine

_SHOWN = 6


def note_the_rest(module: ModuleOp, main: func.FuncOp, machine: Machine, free: int) -> None:
    """Say which layers are not the array's, by reason, what work that leaves to the CPU, and what the array would need.

    Args:
        module: gets the notes.
        main: what is left of it when the array's products are known.
        machine: the array.
        free: what a size left free is taken to be.
    """
    reasons: dict[str, list[Operation]] = {}
    for layer in main.body.block.ops:
        reason = _stays(layer)
        if reason and multiply_adds(layer, {}):
            reasons.setdefault(reason, []).append(layer)
    for reason, layers in reasons.items():
        names = listed([(node_names(layer) or (layer.name,))[0] for layer in layers])
        total = sum(multiply_adds(layer, dict.fromkeys(_symbols(layer), free)) for layer in layers)
        many = f"{len(layers)} layers stay" if len(layers) > 1 else "1 layer stays"
        products = tuple(product for layer in layers if (product := _as_product(layer, free)) is not None)
        cost = ""
        if products:
            choice = choose_plans(machine, products)
            kinds = " and ".join(sorted({product.operands for product in products}))
            cost = f"; as products of {kinds} on the array: {choice.seconds * 1e3:.2f} ms"
        add_notes(module, f"{many} on the CPU, because {reason}: {names} ({total} multiply-adds{cost})")


def listed(names: Sequence[str]) -> str:
    """Some names, and a sign that there are more."""
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")


def size(dims: Sequence[Dim], free: int) -> int:
    """The product of sizes with every symbol `free`; at least 1."""
    total = 1
    for dim in dims:
        total *= max(1, dim.evaluate(dict.fromkeys(dim.symbols, free)))
    return total


def is_free(op: Operation) -> bool:
    """Whether the first operand of an operation has a size left free."""
    return any(dim.symbols for dim in dims_of(op.operands[0]))


def _stays(op: Operation) -> str:
    """Why a layer is not the array's; "" for operations that are no layers."""
    match op:
        case ConvOp() if op.group.value.data > 1:
            return _stays_grouped(op)
        case ConvOp() | LinearOp():
            return "weights are not tiled"
        case dense.MatMulOp():
            return obstacle(op) or "operands are floats (float=bf16 takes them)"
        case dense.ConvOp():
            return conv_obstacle(op) or "operands are floats (float=bf16 takes them)"
        case dense.LstmOp():
            return "LSTMs of floats have no lowering to the array"
        case _:
            return ""


def _stays_grouped(op: ConvOp) -> str:
    """Why a grouped convolution of codes was not made windows and sums."""
    if op.trits.columns > op.trits.group_size:
        return "its weights have several scales a row, which grouped convolutions do without on the array"
    return "grouped=cpu or least= keeps a grouped convolution there"


def _symbols(op: Operation) -> set[str]:
    """The names of sizes left free in a layer's tensors."""
    tensors = [value for value in (*op.operands, *op.results) if isinstance(value.type, TensorType)]
    return {symbol for value in tensors for dim in dims_of(value) for symbol in dim.symbols}


def _as_product(op: Operation, free: int) -> Product | None:
    """The products a layer would be; None for what has no such form."""
    match op:
        case ConvOp() | dense.ConvOp():
            group = op.group.value.data
            batch, channels, *positions = dims_of(op.result)
            k = op.trits.columns if isinstance(op, ConvOp) else size(dims_of(op.w)[1:], free)
            planes = op.trits.plane_count if isinstance(op, ConvOp) else 1
            operands = "int8" if isinstance(op, ConvOp) else "bf16"
            m = size([batch, *positions], free)
            return Product(m, k, max(1, planes * size([channels], free) // group), group, operands)
        case dense.MatMulOp() if not obstacle(op):
            a, n = dims_of(op.a), size(dims_of(op.result)[-1:], free)
            if len(dims_of(op.b)) == 2:
                return Product(size(a[:-1], free), size(a[-1:], free), n, 1, "bf16")
            return Product(size(a[-2:-1], free), size(a[-1:], free), n, size(a[:-2], free), "bf16")
        case _:
            return None

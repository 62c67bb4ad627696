"""The pass `add-residuals`: codes of two tensors are added on the cores that make one of them, where that pays.

How the integers are found and proven stands in `residual_fit.py`, how codes travel in `runtime/npu/residual.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from xdsl.context import Context
from xdsl.dialects import arith, func
from xdsl.dialects.builtin import ModuleOp, StringAttr, i8
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from neuc.backends.npu.array_products import FREE, Integers, product_of
from neuc.backends.npu.finish_products import UNFINISHED
from neuc.backends.npu.fold_codes import alike, is_move, moves_of
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.left_behind import size
from neuc.backends.npu.requantize_constants import stages_of
from neuc.backends.npu.residual_fit import Addition, addition_of
from neuc.backends.npu.tiling import Product, candidates, product_cost
from neuc.backends.npu.window_choice import with_images
from neuc.dialects.context import store_of
from neuc.dialects.dense import MapOp, ReshapeOp, TransposeOp, YieldOp
from neuc.dialects.interp.core import Env
from neuc.dialects.locations import fuse_locations
from neuc.dialects.npu_products import GroupedAccumulateOp, RequantizeOp
from neuc.dialects.npu_residual import AddCodesOp
from neuc.dialects.store import ConstantOp, dims_of, element_of, make_constant, tensor_type
from neuc.dialects.ternary import AccumulateOp
from neuc.dialects.weight_store import WeightStore
from neuc.passes.map_building import without
from neuc.passes.partition import drop_unused
from neuc.passes.rewriting import rewrite
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.requantize import Finish
from neuc.runtime.npu.residual import Residual

MODES = ("auto", "array", "cpu")
_OTHER_READERS = "its codes are read by others, too"


@dataclass(frozen=True)
class AddResiduals(ModulePass):
    """Rewrite additions of two tensors of codes to `npu.add_codes` behind the product that makes one of them.

    Rules:
        1. A `dense.map` of two tensors of int8 codes of one shape that rounds their sum to codes → `npu.add_codes`,
           then what the map does with the codes. Codes are the map's for all pairs of codes there are.
        2. One operand are the codes of a finished product that nothing else reads; it is computed right before. Of two
           such products that is the one which shares its operand with fewer others, then the later one.
        3. Operands that are moved alike are added before they are moved; one that lies otherwise is moved back.
        4. Where that is not possible, or takes longer by the cost model than the CPU does, the map gets the attribute
           `npu.unfinished` with the reason.

    Before and after::

        %r = npu.requantize %acc … ; %y = dense.map(%r, %x) {roundeven(((r - 3) * 0.5 + x * 0.3) / 0.6)) : i8}

        %r = npu.requantize %acc … ; %y = npu.add_codes %r, %x, %m, %o, %l, %e

    Options:
        machine: name of a machine, or path of its file.
        mode: auto, where that pays; array, wherever it can; or cpu.
        free: what a size left free is taken to be.
    """

    name = "add-residuals"
    machine: str = "npu-xdna2"
    mode: str = "auto"
    free: int = FREE

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        store = store_of(ctx)
        pattern = _Add(Env(op, store), store, find_machine(self.machine), self.mode, self.free)
        rewrite(op, [pattern], recursive=False)
        drop_unused(next(f for f in op.ops if isinstance(f, func.FuncOp)).body.block)


@dataclass(frozen=True)
class _Carrier:
    """A finished product whose codes, an operand number `index`, nothing else reads, and how those are moved."""

    index: int
    product: Integers
    stages: tuple[RequantizeOp, ...]
    moves: tuple[Operation, ...]


@dataclass
class _Add(RewritePattern):
    """Rules 1 to 4."""

    env: Env
    store: WeightStore
    machine: Machine
    mode: str
    free: int
    known: dict[Product, float] = field(default_factory=dict[Product, float])

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MapOp, rewriter: PatternRewriter) -> None:
        """Add on cores, or say why not."""
        tensors = [value for value in op.inputs if not isinstance(value.owner, ConstantOp)]
        if len(tensors) < 2 or not any(_made_by_products(value) for value in tensors) or not _combines(op):
            return
        why = self._taken(op, rewriter)
        if why:
            op.attributes[UNFINISHED] = StringAttr(why)

    def _taken(self, op: MapOp, rewriter: PatternRewriter) -> str:
        if self.mode == "cpu":
            return "residuals=cpu keeps it there"
        inputs = list(op.inputs)
        if len({tuple(map(str, dims_of(value))) for value in (*inputs, op.result)}) > 1:
            return "its operands differ in shape: a gate is made of what all cores have finished"
        if len(inputs) != 2 or inputs[0] is inputs[1] or any(element_of(value) != i8 for value in inputs):
            return "its operands are not two tensors of int8 codes"
        carriers = [c for i in range(2) if isinstance(c := _carrier(inputs[i], i), _Carrier)]
        if not carriers:
            return _OTHER_READERS
        carrier = min(carriers, key=lambda c: (_sharing(c.product), -_place(c.product)))
        found = addition_of(op, carrier.index, self.env)
        if isinstance(found, str):
            return found
        other, undone = _laid_alike(inputs[1 - carrier.index], carrier.moves)
        if isinstance(other.owner, ConstantOp):
            return "its other operand is a constant"
        moved = any(isinstance(move, TransposeOp) for move in undone)
        why = self._dear(op, carrier, found, moved) if self.mode == "auto" else ""
        if not why:
            self._replace(op, carrier, found, other, undone, rewriter)
        return why

    def _dear(self, op: MapOp, carrier: _Carrier, found: Addition, moved: bool) -> str:
        """Why it does not pay: what the array takes longer, beside what the CPU takes.

        The array takes more tokens and cycles, and a dispatch if its product was one with others. The CPU takes what
        its bytes take, in and out, and a wait for the array where no other work of its own stands between products.
        """
        plain = with_images([carrier.product], product_of([carrier.product], self.free, self.store), self.free)
        assert isinstance(plain.finish, Finish)
        tables = plain.finish.tables + (found.residual.table is not None)
        finish = replace(plain.finish, tables=tables, residual=1, pairs=len(found.residual.corrections))
        array = self._seconds(replace(plain, finish=finish)) - self._seconds(plain)
        host = self.machine.host
        if _sharing(carrier.product):
            array += host.get("dispatch_us", 0.0) * 1e-6
        rate = host.get("cpu_bytes_per_second", 0.0)
        codes = size(dims_of(carrier.stages[-1].result), self.free)
        cpu = (1 if moved else 3) * codes / rate if rate else float("inf")
        if not carrier.moves and all(isinstance(use.operation, AccumulateOp) for use in op.result.uses):
            cpu += host.get("wait_us", 0.0) * 1e-6
        if array <= cpu:
            return ""
        return f"the array would take longer for them: {array * 1e6:.1f} µs more, the CPU {cpu * 1e6:.1f} µs"

    def _seconds(self, product: Product) -> float:
        """The least time of a product on the array."""
        if product not in self.known:
            plans = candidates(self.machine, product.operands, [product], finish=True)
            costs = (product_cost(plan, self.machine, product) for plan in plans)
            self.known[product] = min(cost.cycles + cost.written for cost in costs) / self.machine.clock_hz
        return self.known[product]

    def _replace(
        self,
        op: MapOp,
        carrier: _Carrier,
        found: Addition,
        other: SSAValue,
        undone: Sequence[Operation],
        rewriter: PatternRewriter,
    ) -> None:
        block = op.parent_block()
        assert block is not None
        for part in (carrier.product, *carrier.stages):
            part.detach()
            block.insert_op_before(part, op)
        codes = carrier.stages[-1].result
        parameters = self._constants(found.residual)
        sums = AddCodesOp(codes, other, *(constant.result for constant in parameters))
        sums.location = fuse_locations(op)
        made: list[Operation] = [*undone, *parameters, sums]
        value: SSAValue = sums.result
        for move in carrier.moves:
            made.append(move.clone(value_mapper={move.operands[0]: value}))
            value = made[-1].results[0]
        last = op.body.block.last_op
        assert isinstance(last, YieldOp)
        if last.value is not found.code:
            made.append(rest := without(op, found.code, value))
            rest.location = op.location
            value = rest.result
        rewriter.replace(op, made, [value])

    def _constants(self, given: Residual) -> list[ConstantOp]:
        """The parameters as constants. An empty tensor has no place in a store: a pair that changes nothing is none."""
        none = np.zeros((1, 3), np.int32)
        arrays = {"multipliers": given.multipliers, "addend": given.addend, "limits": given.limits}
        arrays["corrections"] = given.corrections if given.corrections.size else none
        if given.table is not None:
            arrays["table"] = given.table
        return [make_constant(f"residual.{key}", array, self.store) for key, array in arrays.items()]


def _combines(op: MapOp) -> bool:
    """Whether tensors are added or multiplied; selections and comparisons are not what this is about."""
    kinds = (arith.AddfOp, arith.SubfOp, arith.MulfOp, arith.DivfOp)
    return any(isinstance(inner, kinds) for inner in op.body.block.ops)


def _made_by_products(value: SSAValue) -> bool:
    """Whether a value is codes of a product, moved or as floats."""
    while True:
        owner = value.owner
        if isinstance(owner, RequantizeOp | AddCodesOp):
            return True
        if not isinstance(owner, MapOp | TransposeOp | ReshapeOp) or len(owner.operands) != 1:
            return False
        value = owner.operands[0]


def _carrier(value: SSAValue, index: int) -> _Carrier | None:
    """The product whose codes a value is, if nothing else reads them."""
    moves = moves_of(value)
    codes = moves[0].operands[0] if moves else value
    owner = codes.owner
    while isinstance(owner, RequantizeOp) and isinstance(owner.acc.owner, RequantizeOp):
        owner = owner.acc.owner
    if not isinstance(owner, RequantizeOp):
        return None
    product, stages = owner.acc.owner, stages_of(owner)
    if not isinstance(product, AccumulateOp | GroupedAccumulateOp) or stages[-1].result is not codes:
        return None
    read_once = all(made.has_one_use() for made in (codes, *(move.results[0] for move in moves)))
    return _Carrier(index, product, tuple(stages), tuple(moves)) if read_once else None


def _sharing(product: Integers) -> int:
    """Other products that read the same codes, with which it could be one."""
    readers = {use.operation for use in product.q.uses}
    return sum(isinstance(reader, AccumulateOp) for reader in readers) - 1 if isinstance(product, AccumulateOp) else 0


def _place(op: Operation) -> int:
    block = op.parent_block()
    assert block is not None
    return block.get_operation_index(op)


def _laid_alike(other: SSAValue, moves: Sequence[Operation]) -> tuple[SSAValue, list[Operation]]:
    """A tensor as it lies before such movements, and what brings it there, if nothing made it so."""
    theirs = moves_of(other)
    own = [move for move in moves if is_move(move)]
    if alike(theirs, own):
        return (theirs[0].operands[0] if theirs else other), []
    undone: list[Operation] = []
    for move in reversed(own):
        dims = dims_of(move.operands[0])
        if isinstance(move, TransposeOp):
            perm = list(move.perm.get_values())
            undone.append(TransposeOp(other, tuple(perm.index(i) for i in range(len(perm))), tensor_type(i8, dims)))
        else:
            undone.append(ReshapeOp(other, tensor_type(i8, dims)))
        other = undone[-1].results[0]
    return other, undone

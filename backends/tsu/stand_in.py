"""A model of spins becomes one of chains of cells: fields and couplings shared out, states copied, reads by majority.

Where chains lie is `chains.py`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects import arith
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FloatAttr, FunctionType, IntegerAttr, StringAttr, f32, i8
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from neuc.backends.tsu.chains import Cell
from neuc.backends.tsu.machines import Machine
from neuc.dialects import dense
from neuc.dialects import energy as e
from neuc.dialects.dims import product
from neuc.dialects.energy_factors import FactorGraph
from neuc.dialects.onnx import NAME, encode_name, function_names
from neuc.dialects.store import dims_of, element_of, make_constant, tensor_type
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error

Array = np.ndarray
BREAKS = "chain_breaks"
"""The result that is added: the energy of broken chain couplings."""


@dataclass(frozen=True)
class Physical:
    """A model on cells.

    Attributes:
        cells: i32 [P, 2].
        member: which spin each cell stands for, [P].
        field: f32 [P].
        edges: i32 [E, 2] of cells, couplings of the model, then those of the chains.
        weights: f32 [E].
        inner: how many of the edges are the chains'.
        strength: of these.
    """

    cells: Array
    member: Array
    field: Array
    edges: Array
    weights: Array
    inner: int
    strength: float

    @staticmethod
    def of(graph: FactorGraph, chains: Sequence[Sequence[Cell]], machine: Machine, strength: float) -> Physical:
        """Fields shared by a chain's cells, couplings by all wires between two chains; `strength` 0: chosen."""
        couplings = coupling_matrix(graph)
        strength = strength or default_strength(couplings)
        member = np.repeat(np.arange(len(chains)), [len(chain) for chain in chains])
        cells = np.array([cell for chain in chains for cell in chain], np.int32)
        number = {cell: k for k, chain_cell in enumerate(cells.tolist()) for cell in [tuple(chain_cell)]}
        steps = [o for o in machine.offsets if o > (0, 0)]
        wires = [(k, number.get((r + a, c + b), -1)) for (r, c), k in number.items() for a, b in steps]
        pairs = np.array([wire for wire in wires if wire[1] >= 0], np.int64).reshape(-1, 2)
        ends = np.sort(member[pairs], 1)
        inner = ends[:, 0] == ends[:, 1]
        between = ~inner & (couplings[ends[:, 0], ends[:, 1]] != 0)
        shares = np.zeros_like(couplings)
        np.add.at(shares, (ends[between, 0], ends[between, 1]), 1.0)
        shared = ends[between]
        weights = couplings[shared[:, 0], shared[:, 1]] / shares[shared[:, 0], shared[:, 1]]
        edges = np.concatenate([pairs[between], pairs[inner]]).astype(np.int32)
        every = np.concatenate([weights, np.full(inner.sum(), strength)]).astype(np.float32)
        field = (graph.field / np.bincount(member))[member].astype(np.float32)
        return Physical(cells, member, field, edges, every, int(inner.sum()), strength)


def coupling_matrix(graph: FactorGraph) -> Array:
    """J [n, n], symmetric, of edges and stencils."""
    found = np.zeros((graph.sites, graph.sites))
    np.add.at(found, tuple(graph.edges.T), graph.weights)
    found = found + found.T
    for stencil in graph.stencils:
        site, column = np.nonzero(stencil.neighbours >= 0)
        np.add.at(found, (stencil.first + site, stencil.neighbours[site, column]), float(stencil.coupling))
    return found


def default_strength(couplings: Array) -> float:
    """Twice the largest coupling, and no less than what the neighbours of a spin pull at it at random."""
    size, coupled = np.abs(couplings), couplings != 0
    if not coupled.any():
        return 1.0
    rms = np.sqrt((couplings[coupled] ** 2).mean())
    return float(max(2.0 * size.max(), 1.5 * rms * np.sqrt(coupled.sum(1).mean())))


def stand_in(model: e.ModelOp, physical: Physical, store: WeightStore) -> None:
    """Put the physical model in the place of a model of spins, and change all that is done with it.

    Raises:
        Error: NEUC-E638, something other than sampling and reading is done with it.
    """
    block = model.parent_block()
    assert block is not None
    place = _Inserter(InsertPoint.before(model))
    variable = place.add(e.VarOp(e.VarType.of(e.Space.SPIN, (len(physical.cells),))))
    variable.name_hint = "cells"

    def constant(name: str, array: Array) -> SSAValue:
        return place.add(make_constant(name, array, store))

    ends = [constant("cells", np.ascontiguousarray(column)) for column in physical.edges.T]
    terms = [
        place.add(e.LinearOp(variable, constant("fields", physical.field))),
        place.add(e.EdgesOp(variable, variable, ends[0], ends[1], constant("couplings", physical.weights))),
    ]
    made = place.add(e.ModelOp([variable], terms))
    change = _Change(model, physical, store, variable, made)
    for op in list(block.ops):
        change.operation(op)
    for owner in [model, *(v.owner for v in reversed(model.args))]:
        if isinstance(owner, Operation) and all(result.first_use is None for result in owner.results):
            owner.detach()
            owner.erase()


def _asked_by(*values: SSAValue) -> str:
    """The results of the program that values lead to, for a message."""
    reached, left, returned = set(values), list(values), list[tuple[Operation, int]]()
    while left:
        for use in left.pop().uses:
            if isinstance(use.operation, ReturnOp):
                returned.append((use.operation, use.index))
            new = [result for result in use.operation.results if result not in reached]
            reached.update(new)
            left += new
    functions = [(op.parent_op(), index) for op, index in returned]
    names = [function_names(func)[1][index] for func, index in functions if isinstance(func, FuncOp)]
    return f", for result {', '.join(sorted(names))}" if names else ""


class _Inserter:
    def __init__(self, point: InsertPoint) -> None:
        self.point = point

    def add(self, op: Operation) -> SSAValue:
        """Insert an operation; its first result."""
        Rewriter.insert_op(op, self.point)
        return op.results[0]


@dataclass
class _Change:
    """What happens to operations on the old model and its states."""

    model: e.ModelOp
    physical: Physical
    store: WeightStore
    variable: SSAValue
    made: SSAValue

    def operation(self, op: Operation) -> None:
        """Change one operation, if it is of the model."""
        place = _Inserter(InsertPoint.before(op))
        match op:
            case e.InitOp() if op.model is self.model.result:
                new = place.add(e.InitOp(self.made, op.seed, op.chains.value.data))
                op.result.replace_all_uses_with(new)
                op.detach()
                op.erase()
            case e.StateOp() if op.model is self.model.result:
                op.result.replace_all_uses_with(self._state(op, place))
                op.detach()
                op.erase()
            case e.SampleOp() if op.model is self.model.result:
                if op.trajectory.first_use is not None:
                    raise self._refused(f"observed on the way{_asked_by(op.trajectory)}")
                op.operands[0] = self.made
            case e.ReadOp() if op.variable in self.model.variables:
                self._read(op, place)
            case _:
                used = [v for v in op.operands if v is self.model.result]
                clamped = isinstance(op, e.ClampOp) and op.variable in self.model.variables
                if used or clamped:
                    raise self._refused(f"used by {op.name}{_asked_by(*op.results)}")

    def _refused(self, what: str) -> Error:
        hint = "sample it and read its spins, or use target cpu-relax"
        return Error("NEUC-E638", f"a model whose spins are chains of cells is {what}", hint=hint)

    def _state(self, op: e.StateOp, place: _Inserter) -> SSAValue:
        """Every cell begins as its spin does."""
        flat: list[SSAValue] = []
        for value in op.args[1:]:
            chains, *rest = dims_of(value)
            flat.append(place.add(dense.ReshapeOp(value, tensor_type(element_of(value), (chains, product(rest))))))
        chains = dims_of(op.args[1])[0]
        spins = sum(e.var_type(v).sites for v in self.model.variables)
        every = flat[0] if len(flat) == 1 else place.add(dense.ConcatOp(flat, 1, tensor_type(i8, (chains, spins))))
        member = place.add(make_constant("member", self.physical.member.astype(np.int32), self.store))
        copied = dense.GatherOp(every, member, 1, tensor_type(i8, (chains, len(self.physical.cells))))
        return place.add(e.StateOp(self.made, [place.add(copied)]))

    def _read(self, op: e.ReadOp, place: _Inserter) -> None:
        """The majority of a chain's cells; of a tie, its first cell."""
        first = 0
        for variable in self.model.variables:
            if variable is op.variable:
                break
            first += e.var_type(variable).sites
        sites, member = e.var_type(op.variable).sites, self.physical.member
        votes = (member[:, None] == first + np.arange(sites)).astype(np.float32)
        votes[np.searchsorted(member, first + np.arange(sites)), np.arange(sites)] += 0.5
        cells = _as_floats(place, place.add(e.ReadOp(op.state, self.variable)))
        chains = dims_of(cells)[0]
        weights = place.add(make_constant("votes", votes, self.store))
        sums = place.add(dense.MatMulOp(cells, weights, None, tensor_type(f32, (chains, sites))))
        spins = place.add(dense.ReshapeOp(_signs(place, sums), op.result.type))
        op.result.replace_all_uses_with(spins)
        self._report(cells, place)
        op.detach()
        op.erase()

    def _report(self, cells: SSAValue, place: _Inserter) -> None:
        """Return strength · Σ (1 − s_a s_b) over the couplings of chains, once."""
        block = place.point.block
        main = block.parent_op()
        last = block.last_op
        if not isinstance(main, FuncOp) or not isinstance(last, ReturnOp) or self._reported(main):
            return
        inner = self.physical.edges[len(self.physical.edges) - self.physical.inner :]
        matrix = np.zeros((len(self.physical.cells),) * 2, np.float32)
        np.add.at(matrix, tuple(inner.T), np.float32(self.physical.strength))
        chains = dims_of(cells)[0]
        weights = place.add(make_constant("chain_couplings", matrix, self.store))
        pulls = place.add(dense.MatMulOp(cells, weights, None, cells.type))
        agreed = place.add(_map(cells.type, [cells, pulls], lambda a, b: [arith.MulfOp(a, b)]))
        kept = place.add(dense.ReduceOp(agreed, "sum", [1], False, tensor_type(f32, (chains,))))
        most = arith.ConstantOp(FloatAttr(self.physical.strength * len(inner), f32))
        broken = place.add(_map(kept.type, [kept], lambda a: [most, arith.SubfOp(most.result, a)]))
        last.operands = [*last.operands, broken]
        main.properties["function_type"] = FunctionType.from_lists(
            list(main.function_type.inputs.data), [v.type for v in last.operands]
        )
        named = DictionaryAttr({NAME: StringAttr(encode_name(BREAKS))})
        unnamed = [DictionaryAttr({}) for _ in last.operands[1:]]
        others = unnamed if main.res_attrs is None else main.res_attrs.data
        main.properties["res_attrs"] = ArrayAttr([*others, named])

    @staticmethod
    def _reported(main: FuncOp) -> bool:
        attrs = () if main.res_attrs is None else main.res_attrs.data
        return any(BREAKS in str(attr) for attr in attrs)


def _map(result: Attribute, inputs: list[SSAValue], body: Callable[..., list[Operation]]) -> dense.MapOp:
    """A map whose body is these operations; the last one's result is yielded."""
    made = dense.MapOp(inputs, result)
    ops = body(*made.body.block.args)
    made.body.block.add_ops([*ops, dense.YieldOp(ops[-1].results[0])])
    return made


def _as_floats(place: _Inserter, spins: SSAValue) -> SSAValue:
    result = tensor_type(f32, dims_of(spins))
    return place.add(_map(result, [spins], lambda a: [arith.SIToFPOp(a, f32)]))


def _signs(place: _Inserter, sums: SSAValue) -> SSAValue:
    """+1 above 0, else -1, as spins."""

    def body(a: SSAValue) -> list[Operation]:
        zero = arith.ConstantOp(FloatAttr(0.0, f32))
        up, down = (arith.ConstantOp(IntegerAttr(value, i8)) for value in (1, -1))
        above = arith.CmpfOp(a, zero.result, "ogt")
        return [zero, up, down, above, arith.SelectOp(above.result, up.result, down.result)]

    return place.add(_map(tensor_type(i8, dims_of(sums)), [sums], body))

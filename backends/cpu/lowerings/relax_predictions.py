"""`energy.prediction` as rows: a region's operations forwards, and backwards to its variables and parameters.

Linear operations are products (`Dense`, or `Sparse` over edges that share weights), the same ones transposed on the way
back; scalar bodies are differentiated by `dialects/energy_derivatives.py`.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from neuc.backends.cpu.kernels.relax_regions import Largest, MapRows, Pick, ToLargest
from neuc.backends.cpu.kernels.relax_rows_code import Code, Rows, Then
from neuc.backends.cpu.kernels.relax_rows_products import Dense, Product
from neuc.backends.cpu.lowerings.elementwise import read_body
from neuc.backends.cpu.lowerings.relax_edges import Edges, edges_of, sparse, window_taps
from neuc.backends.cpu.lowerings.relax_plan import Plan
from neuc.dialects import dense
from neuc.dialects import energy as e
from neuc.dialects.dense_attrs import PoolKind
from neuc.dialects.energy_derivatives import derivative
from neuc.dialects.energy_prediction import CHAINS, moves
from neuc.dialects.interp.core import Env, run_op
from neuc.dialects.interp.energy_prediction import origins
from neuc.dialects.store import ConstantOp, dims_of
from neuc.dialects.weight_store import WeightStore

Array = np.ndarray
MOVEMENT = (dense.ReshapeOp, dense.TransposeOp, dense.SliceOp, dense.ConcatOp, dense.PadOp, dense.BroadcastOp)


def prediction_unsupported(op: e.PredictionOp) -> str | None:
    """Why a prediction has no CPU kernel; None if it has one."""
    operands = dict[SSAValue, SSAValue](zip(op.block.args, op.args))
    for inner in list(op.block.ops)[:-1]:
        if not any(moves(v) for v in inner.operands):
            known = all(isinstance(operands.get(v, v).owner, ConstantOp) or v not in operands for v in inner.operands)
            if not known:
                return f"{inner.name} of inputs of the program alone has no CPU kernel in a prediction"
        elif isinstance(inner, dense.MatMulOp) and (moves(inner.b) or not moves(inner.a)):
            return "a product of two variables has no CPU kernel in a prediction: write it with maps and sums"
        elif isinstance(inner, dense.ConvOp) and moves(inner.w):
            return "a convolution whose weights are a variable has no CPU kernel in a prediction"
        elif isinstance(inner, dense.PadOp) and inner.value.value.data != 0.0:
            return "padding with other numbers than 0 has no CPU kernel in a prediction"
        elif isinstance(inner, MOVEMENT) and not all(moves(v) for v in inner.operands):
            return f"{inner.name} of variables and parameters together has no CPU kernel in a prediction"
        elif isinstance(inner, dense.MapOp):
            bodies = [inner.body.block, *(derivative(inner.body.block, k) for k in range(len(inner.inputs)))]
            odd = [found for found in map(read_body, bodies) if isinstance(found, str)]
            if odd:
                return odd[0]
    return None


@dataclass
class Gradient:
    """What adds up to the gradient of a value: products, then what follows them."""

    products: tuple[Product, ...] = ()
    then: tuple[Then, ...] = ()

    def plus(self, products: tuple[Product, ...] = (), then: tuple[Then, ...] = ()) -> Gradient:
        """With more."""
        return Gradient(self.products + products, self.then + then)


@dataclass
class Region:
    """A prediction in a plan: where the values of its region lie.

    Attributes:
        rows: first rows of what depends on variables, and of parameters that maps read.
        known: operands of the term, or arrays computed at compile time, behind everything else.
        back: gradients of the region's values and parameters, once `backward` has run.
        weighted: products and convolutions, with the first row of their results' gradients, once it has.
    """

    plan: Plan
    op: e.PredictionOp
    rows: dict[SSAValue, int] = field(default_factory=dict[SSAValue, int])
    known: dict[SSAValue, SSAValue | Array] = field(default_factory=dict[SSAValue, "SSAValue | Array"])
    back: dict[SSAValue, Gradient] = field(default_factory=dict[SSAValue, Gradient])
    weighted: list[tuple[Operation, int]] = field(default_factory=list[tuple[Operation, int]])

    def __post_init__(self) -> None:
        self.env = Env(ModuleOp([]), WeightStore(), {CHAINS: 1})
        for argument, operand in zip(self.op.block.args, self.op.args):
            if isinstance(operand.type, e.VarType):
                self.rows[argument] = self.plan.row(operand)
            else:
                self.known[argument] = operand
        for inner in list(self.op.block.ops)[:-1]:
            if moves(inner.results[0]) and any(moves(v) for v in inner.operands):
                self._forward(inner)
            else:
                arrays = [self._array(v) for v in inner.operands]
                self.known[inner.results[0]] = run_op(inner, arrays, self.env)[0].astype(np.float32)

    # ---------------------------------------------------------------- forwards

    def _array(self, value: SSAValue) -> Array:
        known = self.known[value]
        array = known if isinstance(known, np.ndarray) else self.plan.s.constant(known)
        assert array is not None
        return array

    def row(self, value: SSAValue) -> int:
        """The first row of a value; of a parameter, rows that it is copied to once."""
        if value not in self.rows:
            known = self.known[value]
            array = isinstance(known, np.ndarray)
            key = ("prediction", known.tobytes() if array else known)
            fresh = not self.plan.has(key)
            made = self.plan.space(size_of(value), key)
            if fresh:
                slot = self.plan.array("relax.known", known) if array else self.plan.parameter(known)
                self.plan.before.append(Rows(size_of(value), (), (Then("parameter", 0, slot), Then("store", made))))
                self.plan.fixed.add(made)
            self.rows[value] = made
        return self.rows[value]

    def _forward(self, op: Operation) -> None:
        """Rows of an operation's result; computed once if no step changes what it reads."""
        plan, result = self.plan, op.results[0]
        if isinstance(op, dense.ReshapeOp):
            self.rows[result] = self.row(op.x)
            return
        sources = [self.row(v) for v in op.operands if moves(v) or isinstance(op, dense.MapOp)]
        fixed = all(row in plan.fixed for row in sources)
        key = (self.op, result)
        fresh = not plan.has(key)
        size = size_of(result)
        made = self.rows[result] = plan.space(size, key)
        if fixed and not fresh:
            return
        if fixed:
            plan.fixed.add(made)
        code = plan.before if fixed else plan.body
        match op:
            case dense.MapOp():
                body = read_body(op.body.block)
                assert not isinstance(body, str)
                code.append(MapRows(made, size, self._aligned(op, code), *body))
            case dense.PoolOp() if op.kind.data is PoolKind.MAX:
                near, count, inside = self._taps(op, code)
                code.append(Largest(made, size, inside, near, count))
            case dense.MatMulOp() | dense.ConvOp() | dense.PoolOp() | dense.ReduceOp():
                then = [Then("store", made)]
                if isinstance(op, dense.MatMulOp | dense.ConvOp) and op.bias is not None:
                    then.insert(0, Then("add", self._spread(op.bias, self._bias_places(op), code)))
                plan.sums(size, (self._product(op),), then, code)
            case _:
                self._move(op, made, code)

    def _aligned(self, op: dense.MapOp, code: list[Code]) -> tuple[tuple[int, int], ...]:
        """Where a map's operands lie, as first row and stride."""
        found: list[tuple[int, int]] = []
        for value in op.inputs:
            if size_of(value) in (1, size_of(op.result)):
                found.append((self.row(value), 0 if size_of(value) == 1 else 1))
            else:
                found.append((self._spread(value, broadcast_places(value, op.result), code), 1))
        return tuple(found)

    def _spread(self, value: SSAValue, places: Array, code: list[Code]) -> int:
        """Rows with the row of `value` that each place names."""
        row = self.row(value)
        key = ("spread", row, places.tobytes())
        fresh = not self.plan.has(key)
        made = self.plan.space(len(places), key)
        fixed = row in self.plan.fixed
        if not fixed or fresh:
            pick = Pick(made, len(places), row, self.plan.array("relax.places", places.astype(np.int32)))
            (self.plan.before if fixed else code).append(pick)
        return made

    def _bias_places(self, op: dense.MatMulOp | dense.ConvOp) -> Array:
        assert op.bias is not None
        if isinstance(op, dense.MatMulOp):
            return broadcast_places(op.bias, op.result)
        channels = size_of(op.bias)
        return np.repeat(np.arange(channels), size_of(op.result) // channels)

    def _taps(self, op: dense.PoolOp, code: list[Code]) -> tuple[int, int, int]:
        """The slot of a pool's taps, how many a window has, and the first row of what they read."""
        taps, row, size = window_taps(op), self.row(op.x), size_of(op.x)
        if (taps < 0).any():
            # Padding never wins: one more row than x, of -inf.
            low = self.plan.array("relax.low", np.array([-np.inf], np.float32))
            padded = self.plan.space(size + 1)
            code.append(Rows(size, (), (Then("load", row), Then("store", padded))))
            code.append(Rows(1, (), (Then("parameter", 0, low), Then("store", padded + size))))
            taps, row = np.where(taps < 0, size, taps), padded
        return self.plan.array("relax.taps", taps.astype(np.int32)), taps.shape[1], row

    def _product(self, op: Operation) -> Product:
        if isinstance(op, dense.MatMulOp) and len(dims_of(op.a)) == 2:
            rows, columns = (d.value for d in dims_of(op.b))
            slot, alpha = self.slot(op.b), op.alpha.value.data
            if op.transpose_b is None:
                return Dense(slot, self.row(op.a), rows, 1, columns, alpha)
            return Dense(slot, self.row(op.a), columns, columns, 1, alpha)
        edges = edges_of(op)
        return self._sparse(op, edges, size_of(op.results[0]), self.row(op.operands[0]))

    def _sparse(self, op: Operation, edges: Edges, size: int, row: int) -> Product:
        weights = edges.weights if edges.weights is not None else self.known[op.operands[1]]
        return sparse(self.plan, edges.target, edges.source, edges.weight, weights, size, row, edges.scale)

    def slot(self, value: SSAValue) -> int:
        """The slot of a parameter."""
        known = self.known[value]
        return self.plan.array("relax.known", known) if isinstance(known, np.ndarray) else self.plan.parameter(known)

    def _move(self, op: Operation, made: int, code: list[Code]) -> None:
        """Of each operand, the results that are its elements; the rest are zeros."""
        source, first = self._origins(op), 0
        if (source < 0).any():
            code.append(Rows(len(source), (), (Then("store", made),)))
        for value in op.operands:
            here = (source >= first) & (source < first + size_of(value))
            self._pick_into(made, np.flatnonzero(here), self.row(value), source[here] - first, code)
            first += size_of(value)

    def _pick_into(self, made: int, target: Array, row: int, source: Array, code: list[Code]) -> None:
        """row[made + target] = row[row + source], run of targets by run."""
        ends = np.flatnonzero(np.diff(target) != 1) + 1
        for part, near in zip(np.split(target, ends), np.split(source, ends)):
            if len(part):
                places = self.plan.array("relax.places", near.astype(np.int32))
                code.append(Pick(made + int(part[0]), len(part), row, places))

    def _origins(self, op: Operation) -> Array:
        shapes = [(1, *(d.value for d in dims_of(v)[1:])) for v in op.operands]
        return origins(op, shapes, self.env)

    # ---------------------------------------------------------------- backwards

    def backward(self, seed: Gradient, parameters: Collection[SSAValue] = ()) -> None:
        """Gradients of the region's variables, and of `parameters`, from that of what it predicts."""
        self.back[self.op.predicted] = seed
        wanted = {a for a, o in zip(self.op.block.args, self.op.args) if isinstance(o.type, e.VarType)}
        wanted |= {a for a, o in zip(self.op.block.args, self.op.args) if o in parameters}
        needed = set[SSAValue](wanted)
        for op in list(self.op.block.ops)[:-1]:
            if any(v in needed for v in op.operands):
                needed.add(op.results[0])
        for op in reversed(list(self.op.block.ops)[:-1]):
            if op.results[0] in self.back and op.results[0] in needed and op.results[0] in self.rows:
                self._back(op, needed)

    def gradient_rows(self, value: SSAValue) -> int:
        """Rows of a value's gradient."""
        made = self.plan.space(size_of(value), (self.op, value, "gradient"))
        found = self.back[value]
        self.plan.sums(size_of(value), found.products, (*found.then, Then("store", made)))
        return made

    def _give(self, value: SSAValue, *, products: tuple[Product, ...] = (), then: tuple[Then, ...] = ()) -> None:
        self.back[value] = self.back.get(value, Gradient()).plus(products, then)

    def _back(self, op: Operation, needed: set[SSAValue]) -> None:
        plan, g, result = self.plan, self.gradient_rows(op.results[0]), op.results[0]
        match op:
            case dense.ReshapeOp():
                self._give(op.x, then=(Then("add", g),))
            case dense.MapOp():
                for number, value in enumerate(op.inputs):
                    if value in needed:
                        self._back_map(op, number, g)
            case dense.PoolOp() if op.kind.data is PoolKind.MAX:
                near, count, inside = self._taps(op, plan.body)
                size = size_of(op.x)
                made = plan.space(size + 1, (self.op, result, "largest"))
                plan.body.append(Rows(size + 1, (), (Then("store", made),)))
                plan.body.append(ToLargest(made, size_of(result), inside, near, count, self.row(result), g))
                self._give(op.x, then=(Then("add", made),))
            case dense.MatMulOp() | dense.ConvOp() | dense.PoolOp() | dense.ReduceOp():
                if op.operands[0] in needed:
                    self._give(op.operands[0], products=(self._transposed(op, g),))
                bias = op.bias if isinstance(op, dense.MatMulOp | dense.ConvOp) else None
                if isinstance(op, dense.MatMulOp | dense.ConvOp) and bias is not None and bias in needed:
                    self._collect(bias, self._bias_places(op), g)
                self.weighted.append((op, g))
            case _:
                source, first = self._origins(op), 0
                for value in op.operands:
                    here = np.flatnonzero((source >= first) & (source < first + size_of(value)))
                    places = np.full(len(source), -1)
                    places[here] = source[here] - first
                    self._collect(value, places, g)
                    first += size_of(value)

    def _back_map(self, op: dense.MapOp, number: int, g: int) -> None:
        plan, value, size = self.plan, op.inputs[number], size_of(op.result)
        body = read_body(derivative(op.body.block, number))
        assert not isinstance(body, str)
        instructions, last = body
        made = g
        if instructions or last != len(op.inputs):
            made = plan.space(size, (self.op, op.result, "slope", number))
            plan.body.append(MapRows(made, size, (*self._aligned(op, plan.body), (g, 1)), instructions, last))
        if size_of(value) == size:
            self._give(value, then=(Then("add", made),))
        else:
            self._collect(value, broadcast_places(value, op.result), made)

    def _collect(self, value: SSAValue, places: Array, g: int) -> None:
        """Give a value the sums of the rows of g that name its places."""
        here = np.flatnonzero(places >= 0)
        ones = np.ones(1, np.float32)
        product = sparse(self.plan, places[here], here, np.zeros(len(here), np.int64), ones, size_of(value), g, 1.0)
        self._give(value, products=(product,))

    def _transposed(self, op: Operation, g: int) -> Product:
        if isinstance(op, dense.MatMulOp) and len(dims_of(op.a)) == 2:
            rows, columns = (d.value for d in dims_of(op.b))
            slot, alpha = self.slot(op.b), op.alpha.value.data
            if op.transpose_b is None:
                return Dense(slot, g, columns, columns, 1, alpha)
            return Dense(slot, g, rows, 1, columns, alpha)
        edges = edges_of(op)
        turned = Edges(edges.source, edges.target, edges.weight, edges.weights, edges.scale)
        return self._sparse(op, turned, size_of(op.operands[0]), g)


def prediction_force(region: Region) -> tuple[Then, Gradient]:
    """What adds dF/dx to a sum, and dF/df."""
    plan, op = region.plan, region.op
    p, f = op.precision.value.data, region.row(op.predicted)
    if op.product is not None:
        return Then("add", f, scale=-p), Gradient(then=(Then("add", plan.row(op.x), scale=-p),))
    made = plan.space(size_of(op.predicted), (op, "error"))
    error = (Then("add", plan.row(op.x), scale=p), Then("add", f, scale=-p), Then("store", made))
    plan.sums(size_of(op.predicted), (), error)
    return Then("add", made), Gradient(then=(Then("add", made, scale=-1.0),))


def size_of(value: SSAValue) -> int:
    """Elements of one chain of a value, or of a parameter."""
    return math.prod(d.value for d in dims_of(value)[moves(value) :])


def broadcast_places(value: SSAValue, result: SSAValue) -> Array:
    """Which element of a value each element of a result reads, by broadcasting."""
    own = [d.value for d in dims_of(value)[moves(value) :]]
    target = [d.value for d in dims_of(result)[1:]]
    return np.broadcast_to(np.arange(math.prod(own)).reshape(own), target).reshape(-1)

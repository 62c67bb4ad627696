"""The pass `finish-floats`: what follows bf16 products, column by column, is done on their cores, where that pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha1

import numpy as np
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr, UnitAttr, f32
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from neuc.backends.npu.array_products import FREE, by_operand, product_of
from neuc.backends.npu.curves import Curve
from neuc.backends.npu.finish_constants import Part, ends_of, tally
from neuc.backends.npu.finish_products import UNFINISHED
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.left_behind import size
from neuc.backends.npu.map_stages import MapStages, Vector, map_stages
from neuc.backends.npu.row_costs import Work, check_figures, cpu_seconds
from neuc.backends.npu.tiling import Choice, Product, choose_plans
from neuc.backends.npu.use_rows import note_tables
from neuc.dialects.context import store_of
from neuc.dialects.dense import MapOp
from neuc.dialects.dense_movement import ConcatOp, ReshapeOp, SliceOp, TransposeOp
from neuc.dialects.interp.core import Env
from neuc.dialects.npu_finish import FinishOp
from neuc.dialects.npu_products import MatmulOp
from neuc.dialects.npu_rows import ChainOp, LayerNormOp, SoftmaxOp
from neuc.dialects.npu_windows import WindowsOp
from neuc.dialects.store import ConstantOp, constant_value, dims_of, element_of, make_constant
from neuc.dialects.weight_store import WeightStore
from neuc.errors import Error
from neuc.passes.map_building import without
from neuc.runtime.npu.float_finish import FloatFinish
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.rows import RowPlan

_MOVES = (TransposeOp, ReshapeOp, SliceOp, ConcatOp, WindowsOp)


@dataclass(frozen=True)
class FinishFloats(ModulePass):
    """Rewrite what follows `npu.matmul` element by element to `npu.finish`, which its cores do before C leaves.

    Rules:
        1. The front of a `dense.map` behind a product, as long as it scales and shifts by numbers or vectors of
           columns, or computes functions of one value → `npu.finish`, up to two; the rest stays a map.
        2. A result that only operations read which round it to bf16 gets ``narrow``: it leaves in half the bytes.
        3. Products of the same floats run as one; they are finished if they are alike.
        4. With mode ``auto``, only where the array's time by `tiling.py` and the CPU's time for what is left are no
           more than they are without; with ``always``, whatever cores can.

    What stays with the CPU gets the attribute `npu.unfinished` with the reason.

    Before and after::

        %p = npu.matmul %a, %b ; %y = dense.map(%p, %bias) {gelu(p + bias)} : …

        %p = npu.matmul %a, %b ; %y = npu.finish %p shift %bias table %gelu : …

    Options:
        machine: name of a machine, or path of its file.
        mode: auto or always.
        free: what a size left free is taken to be.
    """

    name = "finish-floats"
    machine: str = "npu-xdna2"
    mode: str = "auto"
    free: int = FREE

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        machine, store = find_machine(self.machine), store_of(ctx)
        check_figures(machine)
        main = next(f for f in op.ops if isinstance(f, func.FuncOp))
        groups = [_group(layers, Env(op, store), store, self) for layers in _float_products(main)]
        paying = _that_pay(groups, machine, self)
        note_tables(op, [curve for group in paying for curve in group.curves])
        for group in paying:
            for product, stages in zip(group.products, group.stages):
                _rewrite(product, stages, store, narrow=group.narrow)


@dataclass(frozen=True)
class NarrowResults(ModulePass):
    """Give ``narrow`` to `npu.finish` whose results only operations read that round to bf16, chains among them.

    Before and after::

        %y = npu.finish %p shift %b ; %z = npu.softmax %y

        %y = npu.finish %p shift %b {narrow} ; %z = npu.softmax %y
    """

    name = "narrow-results"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        main = next(f for f in op.ops if isinstance(f, func.FuncOp))
        for products in _float_products(main):
            ends = [ends_of(product) for product in products]
            if all(own and _is_rounded(own[-1].result) for own in ends):
                for own in ends:
                    own[-1].properties["narrow"] = UnitAttr()


def _float_products(main: func.FuncOp) -> list[list[MatmulOp]]:
    """Products of floats, those that run as one together."""
    groups = [[layer for layer in layers if isinstance(layer, MatmulOp)] for layers in by_operand(main)]
    return [layers for layers in groups if layers]


@dataclass
class _Group:
    """Products that run as one, what may follow each on its core, and whether results leave as bf16."""

    products: list[MatmulOp]
    unfinished: Product
    stages: list[MapStages | None]
    narrow: bool
    finished: Product = field(init=False)

    def __post_init__(self) -> None:
        self.finished = replace(self.unfinished, finish=self._finish())

    @property
    def curves(self) -> list[Curve]:
        """The tables of its stages."""
        stages = [stage for found in self.stages if found is not None for stage in found.stages]
        return [stage.curve for stage in stages if stage.curve is not None]

    def _finish(self) -> FloatFinish | None:
        if not any(self.stages) and not self.narrow:
            return None
        return tally(_parts(self.stages[0]), narrow=self.narrow)


def _parts(stages: MapStages | None) -> list[Part]:
    made: list[Part] = []
    for stage in stages.stages if stages is not None else ():
        words = b"" if stage.curve is None else stage.curve.words.tobytes()
        has = (stage.scale is not None, stage.shift is not None, stage.slope is not None, stage.limits is not None)
        made.append(Part(*has, len(words) // 4, sha1(words).hexdigest() if words else ""))
    return made


def _likeness(stages: MapStages | None) -> list[object]:
    alike = [(stage.slope, stage.limits) for stage in stages.stages] if stages is not None else []
    return [*_parts(stages), *alike]


def _group(layers: list[MatmulOp], env: Env, store: WeightStore, asked: FinishFloats) -> _Group:
    """What may follow products that run as one; what may not is marked with the reason."""
    found: list[MapStages | None] = []
    for product in layers:
        stages = _behind(product, env, store)
        if isinstance(stages, MapStages) and asked.mode == "auto" and not (stages.is_whole or stages.functions):
            stages = "another tensor is combined with it, in the same pass of the CPU"
        if isinstance(stages, str):
            product.attributes[UNFINISHED] = StringAttr(stages)
        found.append(stages if isinstance(stages, MapStages) else None)
    if any(_likeness(stages) != _likeness(found[0]) for stages in found):
        for product in (product for product, stages in zip(layers, found) if stages is not None):
            why = "products that read the same floats run as one, and end in different ways"
            product.attributes[UNFINISHED] = StringAttr(why)
        found = [None] * len(layers)
    ends = [_becomes_result(product, stages) for product, stages in zip(layers, found)]
    narrow = all(value is not None and _is_rounded(value) for value in ends)
    narrow = narrow or any(stages is not None and stages.stages[-1].curve is not None for stages in found)
    return _Group(layers, product_of(list(layers), asked.free, store), found, narrow)


def _becomes_result(product: MatmulOp, stages: MapStages | None) -> SSAValue | None:
    """The value that would leave the array, as far as it is there already."""
    if stages is None:
        return product.result
    return stages.op.result if stages.is_whole else None


def _is_rounded(value: SSAValue) -> bool:
    """Whether all that reads a value rounds it to bf16 first."""
    for use in value.uses:
        user = use.operation
        reads = isinstance(user, MatmulOp) or (isinstance(user, ChainOp) and use.index < len(user.inputs))
        reads = reads or (isinstance(user, SoftmaxOp | LayerNormOp) and use.index == 0)
        if not reads and not (isinstance(user, _MOVES) and _is_rounded(user.results[0])):
            return False
    return bool(value.uses)


def _behind(product: MatmulOp, env: Env, store: WeightStore) -> MapStages | str | None:
    """The stages behind a product, why there are none, or None where no map follows."""
    user = product.result.get_user_of_unique_use()
    if not isinstance(user, MapOp):
        return None
    if dims_of(user.result) != dims_of(product.result):
        return "what follows has another shape"
    index = list(user.inputs).index(product.result)
    return map_stages(user, index, env, lambda value: _column(value, product, store))


def _column(value: SSAValue, product: MatmulOp, store: WeightStore) -> Vector | None:
    """The vector of columns that an operand of a product's map is."""
    dims = dims_of(value)
    stacked = not isinstance(product.b.owner, ConstantOp)
    flat = dims[-2:-1] if stacked else dims[:-1]
    if element_of(value) != f32 or any(not dim.is_static or dim.value != 1 for dim in flat):
        return None
    constant = constant_value(value, store) if isinstance(value.owner, ConstantOp) else None
    if constant is None:
        return value if stacked else None
    return constant if stacked else constant.reshape(-1)


def _that_pay(groups: Sequence[_Group], machine: Machine, asked: FinishFloats) -> list[_Group]:
    """The groups to finish on the cores; a reason is set where what could be is not."""
    able = [group for group in groups if group.finished.finish is not None]
    if not able or asked.mode == "always":
        return able
    products = tuple(group.unfinished for group in groups)
    try:
        plain = choose_plans(machine, products)
        whole = choose_plans(machine, tuple(group.finished for group in groups))
    except Error as error:
        _unfinished(able, f"no plan holds it: {error.message}")
        return []
    saved = {id(group): _cpu_saved(group, machine, asked.free) for group in able}
    if whole.seconds <= plain.seconds + sum(saved.values()):
        return able
    gains = {id(group): gain + saved.get(id(group), 0.0) for group, gain in zip(groups, _gains(plain, whole))}
    paying = [group for group in able if gains[id(group)] >= 0]
    chosen = {id(group) for group in paying}
    mixed = tuple(group.finished if id(group) in chosen else group.unfinished for group in groups)
    better = paying and choose_plans(machine, mixed).seconds <= plain.seconds + sum(saved[i] for i in chosen)
    rest = [group for group in able if not better or id(group) not in chosen]
    _unfinished(rest, f"{machine.name} would take longer for it than the CPU by its file")
    return paying if better else []


def _gains(plain: Choice, whole: Choice) -> list[float]:
    """Cycles that each product takes less, finished; all have as many dispatches."""
    clock = plain.seconds_of_dispatches
    cycles = sum(cost.cycles for cost in plain.costs)
    unit = (plain.seconds - clock) / cycles if cycles else 0.0
    return [(a.cycles - b.cycles) * unit for a, b in zip(plain.costs, whole.costs)]


def _unfinished(groups: Sequence[_Group], why: str) -> None:
    for group in groups:
        for product, stages in zip(group.products, group.stages):
            if stages is not None:
                product.attributes[UNFINISHED] = StringAttr(why)


def _cpu_saved(group: _Group, machine: Machine, free: int) -> float:
    """Seconds that the CPU takes less, by the machine file's figures."""
    saved = 0.0
    for stages in (stages for stages in group.stages if stages is not None):
        op, numbers = stages.op, size(dims_of(stages.op.result), free)
        functions = sum(inner.name.startswith("math.") for inner in op.body.block.ops)
        works = [Work(RowPlan("chain", len(op.inputs), 1, 1, 1), numbers, functions)]
        if not stages.is_whole:
            works.append(replace(works[0], functions=functions - stages.functions))
        seconds = [cpu_seconds(machine, work) for work in works]
        saved += seconds[0] - sum(seconds[1:])
    return saved


def _rewrite(product: MatmulOp, stages: MapStages | None, store: WeightStore, *, narrow: bool) -> None:
    """`npu.finish` behind a product, in place of the front of its map."""
    block = product.parent_block()
    assert block is not None
    if stages is None:
        made = FinishOp(product.result, narrow=True)
        made.location = product.location
        block.insert_op_after(made, product)
        product.result.replace_uses_with_if(made.result, lambda use: use.operation is not made)
        return
    op, value = stages.op, product.result
    for number, stage in enumerate(stages.stages):
        given = {"scale": stage.scale, "shift": stage.shift}
        given["table"] = None if stage.curve is None else stage.curve.words
        operands: dict[str, SSAValue] = {}
        for name, vector in given.items():
            if isinstance(vector, np.ndarray):
                constant = make_constant(name, np.ascontiguousarray(vector), store)
                block.insert_op_before(constant, op)
                operands[name] = constant.result
            elif vector is not None:
                operands[name] = vector
        last = number + 1 == len(stages.stages)
        finish = FinishOp(value, **operands, slope=stage.slope, limits=stage.limits, narrow=narrow and last)
        finish.location = op.location
        block.insert_op_before(finish, op)
        value = finish.result
    if not stages.is_whole:
        rest = without(op, stages.value, value)
        rest.location = op.location
        block.insert_op_before(rest, op)
        value = rest.result
    value.name_hint = op.result.name_hint
    op.result.replace_all_uses_with(value)
    op.detach()
    op.erase()

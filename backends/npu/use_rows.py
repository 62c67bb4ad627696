"""The pass `bf16-rows`: element-wise chains, softmax and layer norms of floats become bf16 work for cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from neuc.backends.npu.array_products import FREE
from neuc.backends.npu.curves import Curve, fit_curve
from neuc.backends.npu.element_chains import map_chain
from neuc.backends.npu.emit_rows import RowWork, logical_plan
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.left_behind import listed, size
from neuc.backends.npu.row_costs import Work, check_figures, cpu_seconds, planned
from neuc.dialects.context import store_of
from neuc.dialects.dense import LayerNormOp, MapOp, SoftmaxOp
from neuc.dialects.interp.core import Env
from neuc.dialects.locations import node_names
from neuc.dialects.npu_rows import ChainOp
from neuc.dialects.npu_rows import LayerNormOp as ArrayNormOp
from neuc.dialects.npu_rows import SoftmaxOp as ArraySoftmaxOp
from neuc.dialects.store import ConstantOp, dims_of, make_constant
from neuc.dialects.weight_store import WeightStore
from neuc.passes.module_facts import add_notes
from neuc.runtime.npu.machine import Machine

MODES = ("auto", "always", "never")


@dataclass(frozen=True)
class Bf16Rows(ModulePass):
    """Rewrite float operations that are no products to those cores compute in bf16, where the model says that it pays.

    Rules:
        1. `dense.map` of floats whose steps are sums, differences, products, maxima and minima of tensors, and
           functions of one value → `npu.chain`; each function becomes a table (`curves.py`).
        2. `dense.softmax` along the last axis → `npu.softmax`; `dense.layer_norm` of the last axis → `npu.layer_norm`.
        3. With mode ``auto``, only where a dispatch, two switches of program and the array's time are less than what
           the CPU takes, both by figures of the machine file; with ``always``, whatever a core holds.

    The report says what stays with the CPU and why. It changes numbers: each step rounds to bf16.

    Before and after::

        %y = dense.map(%x) {max(x, 0)} : …

        %y = npu.chain(%x) {steps = ["constant 0.0", "max 0 1"]} : …

    Options:
        machine: name of a machine, or path of its file.
        mode: auto or always.
        free: what a size left free is taken to be.
    """

    name = "bf16-rows"
    machine: str = "npu-xdna2"
    mode: str = "auto"
    free: int = FREE

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        machine, store = find_machine(self.machine), store_of(ctx)
        check_figures(machine)
        main = next(f for f in op.ops if isinstance(f, func.FuncOp))
        stays: dict[str, list[Operation]] = {}
        slower: list[tuple[Operation, float, float]] = []
        errors: list[Curve] = []
        for found in list(main.body.block.ops):
            if not isinstance(found, MapOp | SoftmaxOp | LayerNormOp):
                continue
            made = _rewritten(found, Env(op, store), store)
            if isinstance(made, str):
                stays.setdefault(made, []).append(found)
                continue
            work = work_of(made.op, self.free, _functions(found))
            best = planned(machine, work)
            if best is None:
                too_wide = f"a core of {machine.name} holds no row of {work.plan.columns} numbers"
                stays.setdefault(too_wide, []).append(found)
                continue
            there, here = best[1].seconds + _switches(machine), cpu_seconds(machine, work)
            if self.mode == "auto" and there >= here:
                slower.append((found, there, here))
                continue
            errors += made.curves
            _replace(found, made)
        for reason, layers in stays.items():
            many = f"{len(layers)} operations on floats stay" if len(layers) > 1 else "1 operation on floats stays"
            add_notes(op, f"{many} on the CPU, because {reason}: {listed([_name(layer, main) for layer in layers])}")
        if slower:
            _note_slower(op, main, slower, machine)
        note_tables(op, errors)


def note_tables(module: ModuleOp, curves: Sequence[Curve]) -> None:
    """Say how far tables are from their functions."""
    if not curves:
        return
    worst, most = max(curve.relative for curve in curves), max(curve.segments for curve in curves)
    many = (
        f"{len(curves)} functions of one value are tables" if len(curves) > 1 else "1 function of one value is a table"
    )
    add_notes(
        module,
        f"{many} of at most {most} lines on the cores, whose results are off by at most {worst:.2%} of themselves, "
        "rounding to bf16 included",
    )


def _note_slower(
    module: ModuleOp, main: func.FuncOp, slower: list[tuple[Operation, float, float]], machine: Machine
) -> None:
    """Say which operations cores could do, but no sooner than the CPU."""
    least, most = min(there for _, there, _ in slower) * 1e3, max(here for _, _, here in slower) * 1e3
    many = f"{len(slower)} operations on floats stay" if len(slower) > 1 else "1 operation on floats stays"
    add_notes(
        module,
        f"{many} on the CPU, because a dispatch to {machine.name} with two switches of program takes at least "
        f"{least:.2g} ms by its file, and the CPU at most {most:.2g} ms (elementwise=always takes them all the same): "
        f"{listed([_name(op, main) for op, _, _ in slower])}",
    )


def _switches(machine: Machine) -> float:
    """Seconds of a program's coming and of the next one's."""
    return 2 * machine.host.get("program_switch_us", 0.0) * 1e-6


@dataclass(frozen=True)
class _Made:
    """What an operation becomes, with constants that stand before it, and its tables."""

    op: RowWork
    before: list[Operation]
    curves: list[Curve]


def work_of(op: RowWork, free: int, functions: int = 0) -> Work:
    """How much an operation is, symbols being `free`."""
    dims = dims_of(op.result)
    rows = size(dims, free) if isinstance(op, ChainOp) else size(dims[:-1], free)
    return Work(logical_plan(op), rows, functions)


def _rewritten(op: MapOp | SoftmaxOp | LayerNormOp, env: Env, store: WeightStore) -> _Made | str:
    dims = dims_of(op.result)
    match op:
        case MapOp():
            chain = map_chain(op, env)
            if isinstance(chain, str):
                return chain
            tables = [make_constant("curve", curve.words, store) for curve in chain.curves]
            made = ChainOp(op.inputs, [table.result for table in tables], chain.steps, op.result.type)
            return _Made(made, [*tables], chain.curves)
        case SoftmaxOp():
            if op.log is not None or op.axis.value.data != len(dims) - 1 or not dims[-1].is_static:
                return "it is no softmax along a last axis of a fixed size"
            curve = fit_curve(lambda x: np.exp(np.minimum(x, np.float32(0))))
            assert curve is not None
            table = make_constant("exp", curve.words, store)
            return _Made(ArraySoftmaxOp(op.x, table.result), [table], [curve])
        case LayerNormOp():
            given = [value for value in (op.scale, op.bias) if value is not None]
            if op.axis.value.data != len(dims) - 1 or not dims[-1].is_static:
                return "it is no norm along a last axis of a fixed size"
            if not all(isinstance(v.owner, ConstantOp) and dims_of(v) == dims[-1:] for v in given):
                return "its scales are no constants of one number a column"
            made = ArrayNormOp(op.x, op.scale, op.bias, op.eps.value.data, rms=op.rms is not None)
            return _Made(made, [], [])


def _replace(op: Operation, made: _Made) -> None:
    block = op.parent_block()
    assert block is not None
    for new in (*made.before, made.op):
        new.location = op.location
        block.insert_op_before(new, op)
    result: SSAValue = op.results[0]
    result.replace_all_uses_with(made.op.result)
    made.op.result.name_hint = result.name_hint
    op.detach()
    op.erase()


def _functions(op: Operation) -> int:
    """Functions of one number that a CPU computes for each result."""
    if isinstance(op, MapOp):
        return sum(inner.name.startswith("math.") for inner in op.body.block.ops)
    return int(isinstance(op, SoftmaxOp))


def _name(op: Operation, main: func.FuncOp) -> str:
    """A node of the operation's own; where it has none, as a bias after a product, the one that it follows."""
    others = [inner for inner in main.body.block.ops if not isinstance(inner, MapOp | SoftmaxOp | LayerNormOp)]
    products = {name for inner in others for name in node_names(inner)}
    names = node_names(op) or (op.name,)
    return next((name for name in names if name not in products), f"what follows {names[0]}")

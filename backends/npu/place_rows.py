"""The pass `place-rows`: chains, softmax and norms in bf16 become functions for the array, with its switches."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import cast

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr, UnitAttr
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from neuc.backends.npu.array_products import FREE
from neuc.backends.npu.emit import MACHINE, PLAN, SWITCH
from neuc.backends.npu.emit_rows import ROW_TOKENS, RowWork, row_program
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.npu.left_behind import is_free
from neuc.backends.npu.row_costs import RowCost, planned
from neuc.backends.npu.use_rows import work_of
from neuc.dialects.locations import node_names
from neuc.dialects.npu_rows import ChainOp, SoftmaxOp
from neuc.errors import InternalError
from neuc.passes.module_facts import add_notes, facts_of, set_fact
from neuc.passes.outlining import place
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.rows import RowPlan

EXECUTOR = "npu-rows"


@dataclass(frozen=True)
class PlaceRows(ModulePass):
    """Move `npu.chain`, `npu.softmax` and `npu.layer_norm` into functions of executor ``npu-rows``.

    Rules:
        1. Each becomes a program on all columns, with the tokens that `row_costs.py` finds cheapest.
        2. Of everything placed, products too, a function whose program is another than that of the one before it gets
           ``npu.switch``; the first follows the last of the run before.

    Before and after::

        %y = npu.softmax %x table %t : …

        %y = func.call @rows0(%x) : …

    Options:
        machine: name of a machine, or path of its file.
        free: what a size left free is taken to be when tokens are chosen.
    """

    name = "place-rows"
    machine: str = "npu-xdna2"
    free: int = FREE

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Run the pass."""
        machine = find_machine(self.machine)
        main = next(f for f in op.ops if isinstance(f, func.FuncOp))
        rows: list[dict[str, object]] = []
        free = 0
        kinds: Counter[str] = Counter()
        seconds = 0.0
        for work in [found for found in main.body.block.ops if isinstance(found, RowWork)]:
            best = planned(machine, work_of(work, self.free))
            if best is None:
                raise InternalError(f"no core of {machine.name} holds a row of {work.name}")
            plan, cost = best
            row_program(self.machine, plan)
            name = f"rows{len(rows)}"
            free = self.free if is_free(work) else free
            rows.append(_row(work, plan, cost, name, machine, self.free))
            kinds[_kind(work)] += 1
            seconds += cost.cycles / machine.clock_hz + machine.host.get("dispatch_us", 0.0) * 1e-6
            function = place(op, [work], name, EXECUTOR)
            function.attributes[MACHINE] = StringAttr(self.machine)
            function.attributes[ROW_TOKENS] = StringAttr(f"{plan.rows} x {plan.width}")
            function.attributes[PLAN] = StringAttr(_program(plan))
        if not rows:
            return
        switches = _mark_switches(op, main)
        waits = switches * machine.host.get("program_switch_us", 0.0) * 1e-3
        what = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        add_notes(
            op,
            f"in bf16 on {machine.name}, programs of their own: {what}; predicted {seconds * 1e3:.2f} ms with "
            f"dispatches, and {waits:.1f} ms for {switches} switches of program between them and products",
        )
        known = facts_of(op).get("npu")
        before = cast("dict[str, object]", known) if known is not None else {"free": 0, "layers": []}
        layers = [*cast("list[object]", before["layers"]), *rows]
        free = free or cast(int, before["free"])
        set_fact(op, "npu", {"machine": machine.name, "digest": machine.digest(), "free": free, "layers": layers})


def _kind(work: Operation) -> str:
    if isinstance(work, ChainOp):
        return "element-wise chains"
    return "softmax" if isinstance(work, SoftmaxOp) else "layer norms"


def _program(plan: RowPlan) -> str:
    """What distinguishes one program of lines from another; its tables are part of it."""
    return json.dumps([*vars(plan).values()])


def _mark_switches(module: ModuleOp, main: func.FuncOp) -> int:
    """Say before which functions the array's program changes; returns how often it does."""
    placed = {f.sym_name.data: f for f in module.ops if isinstance(f, func.FuncOp) and PLAN in f.attributes}
    names = [call.callee.string_value() for call in main.body.block.ops if isinstance(call, func.CallOp)]
    order = [placed[name] for name in names if name in placed]
    tables = [_tables(function) for function in order]
    changes = 0
    for number, function in enumerate(order):
        other = order[number - 1]
        if function.attributes[PLAN] != other.attributes[PLAN] or tables[number] != tables[number - 1]:
            function.attributes[SWITCH] = UnitAttr()
            changes += 1
        else:
            function.attributes.pop(SWITCH, None)
    return changes


def _tables(function: func.FuncOp) -> list[str]:
    """Which tables a function's cores hold."""
    works = [op for op in function.body.block.ops if isinstance(op, RowWork)]
    values = [v for op in works for v in op.operands if not isinstance(op, ChainOp) or v in op.tables]
    owners = [v.owner for v in values if isinstance(v.owner, Operation)]
    return [str(owner.properties.get("sha", owner.properties.get("value"))) for owner in owners]


def _row(work: RowWork, plan: RowPlan, cost: RowCost, segment: str, machine: Machine, free: int) -> dict[str, object]:
    """It for the manifest: its nodes, sizes, tokens, and what it should take."""
    amount = work_of(work, free)
    chain = f"chain of {len(plan.steps.split('; '))} steps" if plan.kind == "chain" else plan.kind
    return {
        "segment": segment,
        "products": 0,
        "nodes": list(node_names(work)),
        "m": amount.rows if plan.kind != "chain" else 1,
        "k": plan.operands,
        "n": plan.columns if plan.kind != "chain" else amount.rows,
        "groups": 1,
        "operands": f"bf16 {chain}",
        "tile": [plan.rows, plan.lines, plan.width],
        "spread": "rows",
        "cycles": round(cost.cycles),
        "microseconds": round(cost.cycles / machine.clock_hz * 1e6, 2),
        "limiter": cost.limiter,
        "ddr_bytes": cost.ddr_bytes,
        "padding": round(cost.padding, 4),
        "finished": "",
        "saved_bytes": 0,
        "windows": "",
        "image": [],
    }

"""Placed functions become segments of kind ``npu``: the array's program for one block, and the weights in its tiles."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr

from neuc.backends.npu.build import build
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.placed import PlacedProgram
from neuc.dialects.ternary import AccumulateOp, PackOp
from neuc.dialects.ternary_weights import defining_weight, weight_arrays
from neuc.dialects.weight_store import WeightStore
from neuc.errors import InternalError
from neuc.runtime.npu.gemm import GemmPlan, gemm_graph, tiled_weights, with_sizes
from neuc.runtime.npu.machine import Machine
from neuc.runtime.npu.program import Design
from neuc.runtime.npu.program_json import design_to_json

MACHINE = "npu.machine"
"""Attribute of a placed function: the machine's name, or the path of its file."""
TILE = (64, 64, 64)


def plan_for(machine: Machine, *, ternary: bool) -> GemmPlan:
    """The whole-array product on this machine. One tile size for all layers: one program, no switches between them."""
    return GemmPlan.on(machine, TILE, ternary=ternary)


@lru_cache
def block_program(name: str, ternary: bool) -> Design:
    """The product of one block, placed, routed and checked; any size only changes its sequence.

    Raises:
        Error: NEUC-E675 … E678, the machine cannot hold it.
    """
    machine = find_machine(name)
    plan = plan_for(machine, ternary=ternary)
    graph = gemm_graph(plan, machine, 1)
    return build(with_sizes(graph, plan, machine, (plan.block_m, plan.k, plan.block_n)), machine).design


def emit_segment(function: func.FuncOp, module: ModuleOp, store: WeightStore) -> PlacedProgram:
    """The segment of a placed product (`ternary.pack` and `ternary.accumulate`)."""
    product = next((op for op in function.body.block.ops if isinstance(op, AccumulateOp)), None)
    name = function.attributes.get(MACHINE)
    if product is None or not isinstance(product.packed.owner, PackOp) or not isinstance(name, StringAttr):
        raise InternalError(f"@{function.sym_name.data} is no product placed on an NPU")
    machine = find_machine(name.data)
    trits, _ = weight_arrays(defining_weight(product.packed.owner.weight), store)
    rows = np.ascontiguousarray(trits.reshape(-1, trits.shape[2]))
    ternary = bool(np.abs(rows).max(initial=0) <= 1)
    plan = plan_for(machine, ternary=ternary)
    group = product.packed.owner.packed.group_size
    data: dict[str, object] = {
        "machine": dict(machine.data),
        "program": design_to_json(block_program(name.data, ternary)),
        "tile": list(TILE),
        "ternary": ternary,
        "columns": rows.shape[1],
        "outputs": rows.shape[0],
        "group": group,
    }
    starts = range(0, rows.shape[1], group)
    weights = {f"b{g}": tiled_weights(plan, rows[:, begin : begin + group]) for g, begin in enumerate(starts)}
    return PlacedProgram(data, weights)

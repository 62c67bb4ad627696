"""Placed chains, softmax and norms become segments of kind ``npu-rows``: programs of tokens, and tables."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import BlockArgument, SSAValue

from neuc.backends.npu.build import build
from neuc.backends.npu.emit import MACHINE, SWITCH
from neuc.backends.npu.known_machines import find_machine
from neuc.backends.placed import PlacedProgram
from neuc.dialects.npu_rows import ChainOp, LayerNormOp, SoftmaxOp
from neuc.dialects.store import constant_value, dims_of
from neuc.dialects.weight_store import WeightStore
from neuc.errors import InternalError
from neuc.runtime.npu.functions import to_bf16
from neuc.runtime.npu.program import Design
from neuc.runtime.npu.program_json import design_to_json
from neuc.runtime.npu.rows import RowPlan, row_cycles, row_graph, with_tokens

RowWork = ChainOp | SoftmaxOp | LayerNormOp
"""What becomes a program of lines."""
ROW_TOKENS = "npu.rows"
"""Attribute of a placed function: rows and width of a token, as ``rows x width``."""


@lru_cache
def row_program(name: str, plan: RowPlan) -> Design:
    """The program of a token for each core, placed, routed and checked; how many tokens is the sequence's business.

    Raises:
        Error: NEUC-E675 … E678, the machine cannot hold it.
    """
    machine = find_machine(name)
    graph = row_graph(plan, machine, round(row_cycles(plan, machine)))
    return build(with_tokens(graph, plan, machine, 1), machine).design


def logical_plan(op: RowWork) -> RowPlan:
    """What a core does for an operation, a token being one row, or one number of a chain."""
    match op:
        case ChainOp():
            steps = "; ".join(step.data for step in op.steps)
            return RowPlan("chain", len(op.inputs), 1, 1, 1, steps, tuple(map(_words, op.tables)))
        case SoftmaxOp():
            columns = dims_of(op.x)[-1].value
            return RowPlan("softmax", 1, 1, columns, columns, curves=(_words(op.table),))
        case LayerNormOp():
            columns = dims_of(op.x)[-1].value
            return RowPlan("layer_norm", 1, 1, columns, columns, eps=op.eps.value.data, rms=op.rms is not None)


def _words(table: SSAValue) -> int:
    return dims_of(table)[0].value


def emit_rows(function: func.FuncOp, module: ModuleOp, store: WeightStore) -> PlacedProgram:
    """The segment of a placed chain, softmax or norm."""
    op = next((op for op in function.body.block.ops if isinstance(op, RowWork)), None)
    name, tokens = (function.attributes.get(key) for key in (MACHINE, ROW_TOKENS))
    if op is None or not isinstance(name, StringAttr) or not isinstance(tokens, StringAttr):
        raise InternalError(f"@{function.sym_name.data} is no work on lines placed on an NPU")
    plan = sized(logical_plan(op), tokens.data)
    data: dict[str, object] = {
        "machine": dict(find_machine(name.data).data),
        "program": design_to_json(row_program(name.data, plan)),
        "switch": SWITCH in function.attributes,
        **vars(plan),
        "curves": list(plan.curves),
        "arguments": [0],
    }
    tables = op.tables if isinstance(op, ChainOp) else [op.table] if isinstance(op, SoftmaxOp) else []
    weights = {f"curve{i}": _constant(table, store) for i, table in enumerate(tables)}
    if isinstance(op, ChainOp):
        block = function.body.block
        data["arguments"] = [block.args.index(v) if isinstance(v, BlockArgument) else -1 for v in op.inputs]
        constants = {i: v for i, v in enumerate(op.inputs) if not isinstance(v, BlockArgument)}
        weights |= {f"operand{i}": _constant(value, store) for i, value in constants.items()}
    if isinstance(op, LayerNormOp):
        ones, zeros = np.ones(plan.columns, np.float32), np.zeros(plan.columns, np.float32)
        weights["scale"] = to_bf16(ones if op.scale is None else _constant(op.scale, store))
        weights["bias"] = to_bf16(zeros if op.bias is None else _constant(op.bias, store))
    return PlacedProgram(data, weights)


def sized(plan: RowPlan, tokens: str) -> RowPlan:
    """A plan with the tokens that an attribute says."""
    rows, width = map(int, tokens.split(" x "))
    return replace(plan, rows=rows, width=width, columns=width if plan.kind == "chain" else plan.columns)


def _constant(value: SSAValue, store: WeightStore) -> np.ndarray:
    array = constant_value(value, store)
    if array is None:
        raise InternalError("a table or a scale of work on lines is no constant")
    return array

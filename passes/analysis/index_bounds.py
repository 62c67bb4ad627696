"""Inputs of a graph-level module that are indices: how many rows the smallest table has that each of them picks from.

The bound is kept as an attribute of the input of `@main`, which survives every level. Only inputs that reach a Gather
as they are count; what a model computes from its inputs is not followed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, StringAttr, i64
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, SSAValue

from neuc.dialects.locations import node_names
from neuc.dialects.onnx import OnnxOp, decode_name, encode_name
from neuc.dialects.store import dims_of, element_of, numpy_dtype

INDEX = "neuc.index"
"""Attribute of an input: `rows` of the smallest table it picks from, and the `node` that does."""

# Each element of their first operand is one of their result, and nothing else is.
_MOVEMENTS = frozenset("Identity Reshape Flatten Squeeze Unsqueeze Transpose".split())
_ROWS, _NODE = "rows", "node"
_LONGEST = 200  # letters of a node's name


def note_index_bounds(main: FuncOp) -> None:
    """Note at each input of `main` that picks rows of tables how many the smallest has; other notes stay."""
    if main.is_declaration:  # refused where functions are compiled
        return
    arguments = main.body.block.args
    known = main.arg_attrs.data if main.arg_attrs is not None else ()
    noted: list[DictionaryAttr] = []
    for argument, attributes in zip(arguments, known or [DictionaryAttr({})] * len(arguments), strict=True):
        found = min(_tables(argument, main.body.block), default=None, key=lambda bound: bound[0])
        if found is not None:
            bound = {_ROWS: IntegerAttr(found[0], i64), _NODE: StringAttr(encode_name(found[1][:_LONGEST]))}
            attributes = DictionaryAttr({**attributes.data, INDEX: DictionaryAttr(bound)})
        noted.append(attributes)
    main.arg_attrs = ArrayAttr(noted) if noted else main.arg_attrs


def index_bounds(main: FuncOp) -> list[tuple[int, str] | None]:
    """For each input of `main` what is noted: rows of the table and the node that picks them, or None."""
    attributes = main.arg_attrs.data if main.arg_attrs is not None else ()
    return [_noted(attributes[i]) if i < len(attributes) else None for i in range(len(main.function_type.inputs))]


def _noted(attributes: DictionaryAttr) -> tuple[int, str] | None:
    bound = attributes.data.get(INDEX)
    if not isinstance(bound, DictionaryAttr):
        return None
    rows, node = bound.data.get(_ROWS), bound.data.get(_NODE)
    if not isinstance(rows, IntegerAttr) or not isinstance(node, StringAttr) or rows.value.data < 1:
        return None
    return rows.value.data, decode_name(node.data)


def _tables(value: SSAValue, block: Block) -> Iterator[tuple[int, str]]:
    """Rows and node of each Gather in `block`, whose operations all run, that takes every element of `value`."""
    for use in value.uses:
        op = use.operation
        if not isinstance(op, OnnxOp) or op.domain or op.parent is not block:
            continue
        if op.op_type == "Gather" and use.index == 1:
            rows = _rows(op)
            if rows is not None:
                yield rows, " + ".join(node_names(op)) or op.op_type
        elif use.index == 0 and (op.op_type in _MOVEMENTS or (op.op_type == "Cast" and _keeps_indices(op))):
            yield from _tables(op.results[0], block)


def _rows(gather: OnnxOp) -> int | None:
    """The size of the axis that a Gather picks from, if it is known and there is something."""
    try:
        dims = dims_of(gather.operands[0])
    except ValueError:
        return None
    axis = gather.int_attribute("axis", 0)
    if not -len(dims) <= axis < len(dims) or not dims[axis].is_static:
        return None
    return dims[axis].value if dims[axis].value > 0 else None


def _keeps_indices(cast: OnnxOp) -> bool:
    """Whether a cast is between integers, and changes none that could be an index."""
    try:
        before, after = (numpy_dtype(element_of(value)) for value in (cast.operands[0], cast.results[0]))
    except ValueError:
        return False
    if before is None or after is None or before.kind not in "iu":
        return False
    return np.can_cast(before, after) or (before, after) == (np.int64, np.int32)

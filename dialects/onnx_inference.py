"""Result types of one `onnx` operation by ONNX's own inference function.

Symbolic dims travel through it as opaque text, so it keeps what it merely copies. Rules that compute with symbols are
in `passes/analysis/symbolic_*`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import shape_inference
from xdsl.ir import Attribute

from neuc.dialects.onnx_base import OnnxOp, opsets_of
from neuc.dialects.onnx_proto import node_to_proto, type_from_proto, type_to_proto
from neuc.dialects.onnx_schema import newest_opset, raw_schema
from neuc.dialects.onnx_types import NoneType, UnknownType
from neuc.dialects.weight_store import WeightStore


def infer_result_types(
    op: OnnxOp, operand_types: Sequence[Attribute], constants: Mapping[int, np.ndarray], store: WeightStore
) -> list[Attribute] | None:
    """Types of the results of `op`, given those of its operands and the values of some; None if ONNX cannot tell.

    Raises:
        ValueError: the operand types contradict each other; the text says how.
    """
    opsets = opsets_of(op) or {"": newest_opset()}
    schema = raw_schema(op.op_type, op.domain, opsets.get(op.domain, 1))
    if schema is None or not schema.has_type_and_shape_inference_function or op.bodies:
        return None
    if any(isinstance(type_, UnknownType) for type_ in operand_types):
        return None
    inputs = ["" if isinstance(t, NoneType) else f"i{n}" for n, t in enumerate(operand_types)]
    outputs = ["" if isinstance(t, NoneType) else f"o{n}" for n, t in enumerate(op.result_types)]
    node = node_to_proto(op, inputs, outputs, store)
    data = {f"i{n}": onnx.numpy_helper.from_array(np.asarray(a), f"i{n}") for n, a in constants.items()}
    try:
        found = shape_inference.infer_node_outputs(
            schema,
            node,
            {name: type_to_proto(type_) for name, type_ in zip(inputs, operand_types) if name},
            data,
            opset_imports=[onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        )
    except shape_inference.InferenceError as error:
        raise ValueError(condense(str(error))) from error
    return [type_from_proto(found[n]) if n in found else t for n, t in zip(outputs, op.result_types)]


def condense(text: str) -> str:
    """One line out of one of onnx's messages, without its prefixes."""
    line = " ".join(text.split())
    for prefix in ("[ShapeInferenceError]", "[TypeInferenceError]"):
        line = line.replace(prefix, "")
    return line.strip()[:400]

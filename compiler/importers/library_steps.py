"""The steps of importing that onnx's own library does: checker, version converter, shape inference; and what mends it.

They see the model without its large weights (a shell), lose node names (put back by `restore_origins`) and word their
messages for programmers (condensed to one line).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper
from xdsl.dialects.builtin import ModuleOp, UnrankedTensorType
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

from neuc.compiler.importers.structure import Origin, all_nodes, name_nodes, sort_graph
from neuc.compiler.importers.tensors import Payload, RawTensor
from neuc.dialects.locations import node_names
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.onnx_base import verify_against
from neuc.dialects.onnx_inference import condense
from neuc.errors import Error, NodeRef

TARGET_OPSET = 26
"""The newest opset that onnxruntime 1.31 loads."""

PLACEHOLDER_BYTES = 4096
"""Weights larger than this are hidden from library steps; converters look at the values of small ones."""


def make_shell(model: ModelProto, weights: Mapping[str, Payload], inputs: Mapping[str, Attribute]) -> ModelProto:
    """The model for library steps: small weights as initializers, large ones as inputs of their type."""
    graph = model.graph
    del graph.value_info[:]
    keep = [info for info in graph.input if info.name in inputs]
    shell = [onnx.ValueInfoProto.FromString(info.SerializeToString()) for info in keep]
    del graph.input[:]
    graph.input.extend(shell)
    for name, payload in weights.items():
        if isinstance(payload, np.ndarray) and payload.nbytes <= PLACEHOLDER_BYTES:
            graph.initializer.append(numpy_helper.from_array(payload, name))
        else:
            number, dims = payload_type(payload)
            graph.input.append(onnx.helper.make_tensor_value_info(name, number, dims))
    if model.ir_version < 4:  # older files list every initializer as an input, which newer ones need not
        model.ir_version = 4
    for info in [*graph.input, *graph.output]:  # the checker wants a shape where onnxruntime does not
        if info.type.WhichOneof("value") == "tensor_type":
            info.type.tensor_type.shape.SetInParent()
    return model


def payload_type(payload: Payload) -> tuple[int, tuple[int, ...]]:
    """ONNX's number of the element type, and the shape."""
    if isinstance(payload, np.ndarray):
        return onnx.helper.np_dtype_to_tensor_dtype(payload.dtype), payload.shape
    if isinstance(payload, RawTensor):
        return payload.data_type, payload.dims
    return TensorProto.STRING, payload.dims


def check_model(shell: ModelProto) -> None:
    try:
        onnx.checker.check_model(shell)
    except onnx.checker.ValidationError as error:
        raise Error(
            "NEUC-E104", f"the model is not valid: {_first_line(error)}", hint="export the model again"
        ) from error


def _first_line(error: Exception) -> str:
    return condense(str(error).split("==> Context:")[0])


def convert_opset(shell: ModelProto) -> tuple[ModelProto, str]:
    """The model at the target opset, or as it is with the reason why."""
    version = next((o.version for o in shell.opset_import if o.domain in ("", "ai.onnx")), TARGET_OPSET)
    if version >= TARGET_OPSET:
        return shell, ""
    if version < 9 and any(node.op_type == "Scan" for node in all_nodes(shell.graph.node)):
        # Scan had other operands then; the converter takes them for the new ones without a word.
        return shell, f"opset {version} kept: Scan of opset 8 cannot be converted"
    try:
        converted = onnx.version_converter.convert_version(shell, TARGET_OPSET)
        onnx.checker.check_model(converted)
        sort_graph(converted.graph)
    except Exception as error:  # whatever the converter cannot do, the model still stands as it is
        return shell, f"opset {version} kept: {_first_line(error)}"
    same = {i.name for i in shell.graph.input} == {i.name for i in converted.graph.input} and [
        o.name for o in shell.graph.output
    ] == [o.name for o in converted.graph.output]
    if not same or not _keeps_foreign(shell, converted):
        return shell, f"opset {version} kept: the converter changes the model's interface"
    name_nodes(converted.graph.node)
    return converted, ""


def _keeps_foreign(shell: ModelProto, converted: ModelProto) -> bool:
    """Whether the converter left nodes and versions of other domains alone."""
    for model in (shell, converted):
        model.opset_import.sort(key=lambda o: o.domain)
    others = [(o.domain, o.version) for o in shell.opset_import if o.domain not in ("", "ai.onnx")]
    kept = {(o.domain, o.version) for o in converted.opset_import}
    foreign = [n.op_type for n in shell.graph.node if n.domain]
    return kept.issuperset(others) and foreign == [n.op_type for n in converted.graph.node if n.domain]


def infer_shapes(shell: ModelProto, inputs: Mapping[str, Attribute]) -> ModelProto:
    """The model with ONNX's own inference results.

    Contradictions it finds in single nodes it keeps to itself; our inference reports them, with the nodes' names.
    """
    unranked = [info for info in shell.graph.input if isinstance(inputs.get(info.name), UnrankedTensorType)]
    for info in [*shell.graph.output, *unranked]:  # what outputs declare may be stale; what is inferred is not
        if info.type.WhichOneof("value") == "tensor_type":
            info.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(shell, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise Error(
            "NEUC-E108", f"shapes contradict each other: {_first_line(error)}", hint="check the model's shapes"
        ) from error


def restore_origins(graph: GraphProto, found: dict[str, Origin]) -> dict[str, Origin]:
    """Origins for nodes the converter added: that of the first node around them that has one."""
    known = dict(found)
    following: Origin | None = None
    users: dict[str, Origin] = {}
    for node in reversed(graph.node):
        outputs = [name for name in node.output if name]
        origin = next((known[name] for name in outputs if name in known), None)
        if origin is None:
            origin = next((users[name] for name in outputs if name in users), following)
            if origin is not None:
                known.update(dict.fromkeys(outputs, origin))
        following = origin
        if origin is not None:
            for name in node.input:
                users[name] = origin
    return known


def verify_operations(module: ModuleOp) -> None:
    """Check every operation against its schema; onnx's checker does not look at element types."""
    wrong: list[NodeRef] = []
    for op in module.walk():
        schema = op.schema if isinstance(op, OnnxOp) else None
        if schema is None or not isinstance(op, OnnxOp):
            continue
        try:
            verify_against(op, schema)
        except VerifyException as error:
            wrong.append(NodeRef((node_names(op) or (op.name,))[0], op.full_name, str(error)))
    if wrong:
        first = wrong[0]
        raise Error(
            "NEUC-E104",
            f"{len(wrong)} nodes do not fit their operators, first {first.name} ({first.op_type}): {first.reason}",
            hint="export the model again",
            nodes=wrong,
        )

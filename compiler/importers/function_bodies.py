"""Operators without a lowering of ours, replaced by what ONNX says they are: the function bodies in its schemas.

Only where all of a body becomes native, which a trial on the node alone tells; other operators are left to onnxruntime
whole. Inlining itself, with names and call sites, is `inline_functions.py`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, helper

from neuc.compiler.importers.inline_functions import inline_functions
from neuc.compiler.importers.structure import Origin
from neuc.dialects.context import NeucContext
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.onnx_schema import attribute_defaults, function_body, has_function_body
from neuc.errors import Error

RANDOM = frozenset(["Bernoulli"])
"""Operators whose bodies draw random numbers: onnxruntime draws others."""


def expand_function_bodies(model: ModelProto, found: dict[str, Origin]) -> bool:
    """Replace calls in the main graph by bodies.

    Args:
        model: with inferred types; changed in place, new values have no types yet.
        found: origins by first output name; those of new nodes are added.

    Returns:
        Whether anything was replaced.
    """
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    graph = model.graph
    types: dict[str, TypeProto] | None = None
    bodies: dict[str, FunctionProto | None] = {}
    for node in graph.node:
        if node.domain or node.op_type in RANDOM or not has_function_body(node.op_type, version) or _is_lowered(node):
            continue
        types = _types(graph) if types is None else types
        single = _alone(node, graph, types, model)
        if single is None:
            continue
        key = hashlib.sha256(single.SerializeToString(deterministic=True)).hexdigest()[:12]
        if key not in bodies:
            bodies[key] = _native_body(single, version, key)
        if bodies[key] is not None:
            node.overload = key
    model.functions.extend(body for body in bodies.values() if body is not None)
    if not model.functions:
        return False
    inline_functions(model, found)
    return True


def _is_lowered(node: NodeProto) -> bool:
    from neuc.passes.onnx_lowerings.registry import lowered_operators

    return (node.domain, node.op_type) in lowered_operators()


def _types(graph: GraphProto) -> dict[str, TypeProto]:
    types = {info.name: info.type for info in (*graph.input, *graph.value_info, *graph.output)}
    for tensor in graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    return types


def _alone(node: NodeProto, graph: GraphProto, types: Mapping[str, TypeProto], model: ModelProto) -> ModelProto | None:
    """A model of this node only, its values numbered so that like nodes give like models; None if types are missing."""
    names = [name for name in (*node.input, *node.output) if name]
    if any(not types.get(name, TypeProto()).HasField("tensor_type") for name in names):
        return None
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for other in graph.node:
        if other.op_type == "Constant" and not other.domain and other.attribute[0].name == "value":
            constants[other.output[0]] = other.attribute[0].t
    inputs: list[ValueInfoProto] = []
    tensors: list[TensorProto] = []
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = node.op_type
    for index, name in enumerate(node.input):
        if not name:
            continue
        copy.input[index] = f"i{index}"
        if name in constants:
            tensor = TensorProto()
            tensor.CopyFrom(constants[name])
            tensor.name = f"i{index}"
            tensors.append(tensor)
        else:
            inputs.append(ValueInfoProto(name=f"i{index}", type=types[name]))
    outputs: list[ValueInfoProto] = []
    for index, name in enumerate(node.output):
        if name:
            copy.output[index] = f"o{index}"
            outputs.append(ValueInfoProto(name=f"o{index}", type=types[name]))
    single = helper.make_graph([copy], node.op_type, inputs, outputs, tensors)
    return helper.make_model(single, opset_imports=model.opset_import, ir_version=model.ir_version)


def _native_body(single: ModelProto, version: int, overload: str) -> FunctionProto | None:
    """The body of the one node of a model, if it can be native."""
    body = _body(single, version)
    if body is None:
        return None
    body.overload = overload
    (node,) = single.graph.node
    given = {attribute.name for attribute in node.attribute}
    body.attribute_proto.extend(a for a in attribute_defaults(node.op_type, version) if a.name not in given)
    # Newer versions of what bodies use take more types and mean the same; what does not fit, the trial finds out.
    del body.opset_import[:]
    body.opset_import.append(helper.make_opsetid("", version))
    trial = ModelProto()
    trial.CopyFrom(single)
    trial.graph.node[0].overload = overload
    trial.functions.append(body)
    return body if _is_native(trial) else None


def _body(single: ModelProto, version: int) -> FunctionProto | None:
    """What the schema says the one node is; None if its builder does not take the node."""
    (node,) = single.graph.node
    types = {info.name: info.type for info in single.graph.input}
    for tensor in single.graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    given = [types.get(name, TypeProto()).SerializeToString() for name in node.input]
    text = function_body(node.op_type, version, node.SerializeToString(), given)
    return None if text is None else FunctionProto.FromString(text)


def _is_native(trial: ModelProto) -> bool:
    from neuc.backends.cpu.lowering import unsupported_reason
    from neuc.compiler.importers.onnx_file import import_onnx
    from neuc.passes.lower_onnx_to_dense import LowerOnnxToDense

    context = NeucContext()
    try:
        module = import_onnx(trial, context)
    except Error:
        return False
    LowerOnnxToDense(supports=unsupported_reason).apply(context, module)
    return not any(isinstance(op, OnnxOp) for op in module.walk())

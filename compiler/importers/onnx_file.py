"""Imports an ONNX model as a graph-level module: `func.func @main` of `onnx.*` operations, weights in the store.

The preparation steps and their order are here; each step's work is in a file of its own. Library steps (checker,
version converter, shape inference) see the model without its large weights: placeholders stand for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto, TypeProto, numpy_helper
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, UnrankedTensorType, i64
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

from neuc.compiler.importers.fold_constants import fold_constants
from neuc.compiler.importers.graph_builder import GraphBuilder
from neuc.compiler.importers.inline_functions import inline_functions
from neuc.compiler.importers.structure import Origin, check_operators, check_text, name_nodes, origins, sort_graph
from neuc.compiler.importers.symbols import Symbols
from neuc.compiler.importers.tensors import Payload, RawTensor, read_tensor
from neuc.dialects.context import NeucContext
from neuc.dialects.locations import node_names
from neuc.dialects.onnx import OnnxOp, encode_name, set_opsets
from neuc.dialects.onnx_base import verify_against
from neuc.dialects.onnx_inference import condense
from neuc.dialects.onnx_proto import type_from_proto
from neuc.errors import Error, NodeRef
from neuc.passes.infer_symbolic_shapes import infer_symbolic_shapes

TARGET_OPSET = 26
"""The newest opset that onnxruntime 1.31 loads."""

PLACEHOLDER_BYTES = 4096
"""Weights larger than this are hidden from library steps; converters look at the values of small ones."""

MAX_FILE = 2**31 - 1
"""Protobuf's own limit."""

Source = str | Path | bytes | ModelProto
Shapes = Mapping[str, Sequence[int | str]]


def import_onnx(source: Source, ctx: NeucContext, *, shapes: Shapes | None = None, name: str = "") -> ModuleOp:
    """Import a model.

    Args:
        source: path of a file, its bytes, or a loaded model (left unchanged).
        ctx: its weight store receives the model's tensors.
        shapes: dims of some inputs, by input name: ints and symbol names.
        name: what to call the model in locations; the file's name if there is one.

    Raises:
        Error: NEUC-E103 to NEUC-E110; see `neuc explain`.
    """
    model, folder, file = _read(source, name)
    name_nodes(model.graph.node)
    for function in model.functions:
        name_nodes(function.node)
    check_operators(model)
    weights = _take_weights(model, folder)
    found = origins(model.graph.node)
    inline_functions(model, found)
    sort_graph(model.graph)
    for output, origin in origins(model.graph.node).items():
        found.setdefault(output, origin)

    symbols = Symbols()
    inputs = _input_types(model.graph, weights, symbols, shapes or {})
    shell = _shell(model, weights, inputs)
    _check(shell)
    shell, kept = _convert(shell)
    shell = _infer(shell, inputs)

    for tensor in shell.graph.initializer:  # the converter may have added or changed small ones
        weights[tensor.name] = read_tensor(tensor, None, "the graph")
    builder = GraphBuilder(file, ctx.weights, symbols, _restored(shell.graph, found), folder)
    func = builder.function(shell.graph, inputs, weights)
    module = ModuleOp([func], sym_name=StringAttr(encode_name(Path(file).stem or "model")))
    set_opsets(module, {("" if o.domain == "ai.onnx" else o.domain): o.version for o in shell.opset_import})
    module.attributes["onnx.ir_version"] = IntegerAttr(shell.ir_version, i64)
    if kept:
        module.attributes["onnx.kept_opset"] = StringAttr(encode_name(kept))
    _verify(module)
    _settle(module, ctx)
    return module


def _read(source: Source, name: str) -> tuple[ModelProto, Path | None, str]:
    """The model as a message of our own, the folder of its external data, and the name for locations."""
    if isinstance(source, ModelProto):
        model = ModelProto()
        model.CopyFrom(source)
        folder, file = None, name or "model.onnx"
    else:
        folder, file, data = None, name or "model.onnx", source
        if not isinstance(data, bytes):
            path = Path(data)
            folder, file = path.parent, name or path.name
            data = _file_bytes(path)
        if not data:
            raise Error("NEUC-E103", f"{file} is empty", hint="export the model again")
        model = ModelProto()
        try:
            model.ParseFromString(data)
        except DecodeError as error:
            raise Error(
                "NEUC-E103", f"{file} is not an ONNX model, or is cut off or damaged", hint="export the model again"
            ) from error
    check_text(model)
    graph = model.graph
    if not model.HasField("graph") or not model.ir_version or not (graph.node or graph.output):
        raise Error("NEUC-E103", f"{file} holds no ONNX graph", hint="check that this is the right file")
    if not graph.output:
        raise Error("NEUC-E104", f"the graph of {file} has no outputs", hint="export the model again")
    if model.ir_version > onnx.IR_VERSION:
        raise Error(
            "NEUC-E109",
            f"{file} has IR version {model.ir_version}; versions up to {onnx.IR_VERSION} are known",
            hint="export the model with an older onnx",
        )
    return model, folder, file


def _file_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            raise Error(
                "NEUC-E103",
                f"{path} has {size} bytes, more than protobuf can read",
                hint="save the model with external data",
            )
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or "it is not readable"
        raise Error("NEUC-E103", f"cannot read {path}: {reason}", hint="check the path and its permissions") from error


def _take_weights(model: ModelProto, folder: Path | None) -> dict[str, Payload]:
    """Take all initializers and large constants out of the main graph."""
    graph = model.graph
    weights: dict[str, Payload] = {}
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in weights:
            what = f"initializer {tensor.name!r} is defined twice" if tensor.name else "an initializer has no name"
            raise Error("NEUC-E104", what, hint="export the model again")
        weights[tensor.name] = read_tensor(tensor, folder, "the graph")
    del graph.initializer[:]
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if node.op_type != "Constant" or node.domain or len(node.attribute) != 1 or len(node.output) != 1:
            continue
        (attribute,) = node.attribute
        if attribute.name == "value" and attribute.t.ByteSize() > PLACEHOLDER_BYTES and node.output[0] not in weights:
            weights[node.output[0]] = read_tensor(attribute.t, folder, node.name)
            del graph.node[index]
    known = {info.name for info in graph.input}
    for name in weights:
        if name not in known:  # so that the structure checks know the name
            graph.input.add(name=name)
    return weights


def _input_types(
    graph: GraphProto, weights: Mapping[str, Payload], symbols: Symbols, shapes: Shapes
) -> dict[str, Attribute]:
    """The types of the real inputs, with the caller's shapes; the messages are changed to say the same."""
    types: dict[str, Attribute] = {}
    for info in graph.input:
        if info.name in weights:
            continue
        if info.name in shapes:
            _override(info.type, info.name, shapes[info.name])
        if not info.type.WhichOneof("value"):
            raise Error("NEUC-E104", f"input {info.name!r} has no type", hint="export the model again")
        type_ = type_from_proto(info.type, lambda tensor, i, value=info.name: symbols.input_dim(tensor, i, value))
        if type_from_proto(TypeProto()) == type_:
            raise Error("NEUC-E104", f"input {info.name!r} has an unknown element type", hint="export the model again")
        types[info.name] = type_
    unknown = [name for name in shapes if name not in types]
    if unknown:
        raise Error(
            "NEUC-E108",
            f"a shape is given for {unknown[0]!r}, which is not an input of the model",
            hint=f"the inputs are {', '.join(types)}",
        )
    return types


def _override(type_: TypeProto, name: str, dims: Sequence[int | str]) -> None:
    given = f"the shape {list(dims)} given for input {name!r}"
    if type_.WhichOneof("value") != "tensor_type":
        raise Error("NEUC-E108", f"{given} does not fit: it is no tensor", hint="give shapes for tensors only")
    tensor = type_.tensor_type
    declared = list(tensor.shape.dim)
    if tensor.HasField("shape") and len(declared) != len(dims):
        raise Error("NEUC-E108", f"{given} has rank {len(dims)}, the model says {len(declared)}", hint="give every dim")
    tensor.shape.SetInParent()
    del tensor.shape.dim[:]
    for index, dim in enumerate(dims):
        message = tensor.shape.dim.add()
        if isinstance(dim, str):
            message.dim_param = dim
            continue
        message.dim_value = dim
        was = declared[index].dim_value if declared and declared[index].HasField("dim_value") else -1
        if not 0 <= dim < 2**31 or (was not in (-1, dim) and was >= 0):
            wrong = f"dim {index} is {was} in the model" if was >= 0 else f"dim {index} is impossible"
            raise Error("NEUC-E108", f"{given} contradicts the model: {wrong}", hint="give only dims that are free")


def _shell(model: ModelProto, weights: Mapping[str, Payload], inputs: Mapping[str, Attribute]) -> ModelProto:
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
            number, dims = _type_of(payload)
            graph.input.append(onnx.helper.make_tensor_value_info(name, number, dims))
    if model.ir_version < 4:  # older files list every initializer as an input, which newer ones need not
        model.ir_version = 4
    for info in [*graph.input, *graph.output]:  # the checker wants a shape where onnxruntime does not
        if info.type.WhichOneof("value") == "tensor_type":
            info.type.tensor_type.shape.SetInParent()
    return model


def _type_of(payload: Payload) -> tuple[int, tuple[int, ...]]:
    if isinstance(payload, np.ndarray):
        return onnx.helper.np_dtype_to_tensor_dtype(payload.dtype), payload.shape
    if isinstance(payload, RawTensor):
        return payload.data_type, payload.dims
    return TensorProto.STRING, payload.dims


def _check(shell: ModelProto) -> None:
    try:
        onnx.checker.check_model(shell)
    except onnx.checker.ValidationError as error:
        raise Error(
            "NEUC-E104", f"the model is not valid: {_first_line(error)}", hint="export the model again"
        ) from error


def _first_line(error: Exception) -> str:
    return condense(str(error).split("==> Context:")[0])


def _convert(shell: ModelProto) -> tuple[ModelProto, str]:
    """The model at the target opset, or as it is with the reason why."""
    version = next((o.version for o in shell.opset_import if o.domain in ("", "ai.onnx")), TARGET_OPSET)
    if version >= TARGET_OPSET:
        return shell, ""
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


def _infer(shell: ModelProto, inputs: Mapping[str, Attribute]) -> ModelProto:
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


def _restored(graph: GraphProto, found: dict[str, Origin]) -> dict[str, Origin]:
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


def _verify(module: ModuleOp) -> None:
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


def _settle(module: ModuleOp, ctx: NeucContext) -> None:
    """Infer types and fold constants until nothing changes: each gives the other more to work with."""
    for _ in range(8):  # nested conditionals on constants take a round each
        facts = infer_symbolic_shapes(module, ctx.weights)
        if not fold_constants(module, facts):
            return
    infer_symbolic_shapes(module, ctx.weights)

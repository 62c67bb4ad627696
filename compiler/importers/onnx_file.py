"""Imports an ONNX model as a graph-level module: `func.func @main` of `onnx.*` operations, weights in the store.

The preparation steps and their order are here; each step's work is in a file of its own. Library steps (checker,
version converter, shape inference) see the model without its large weights: placeholders stand for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TypeProto
from xdsl.dialects.builtin import ArrayAttr, IntegerAttr, ModuleOp, StringAttr, i64
from xdsl.ir import Attribute

from neuc.compiler.importers.declared_sizes import check_default, check_dims, check_outputs, static_dims
from neuc.compiler.importers.fold_constants import fold_constants
from neuc.compiler.importers.function_bodies import expand_function_bodies
from neuc.compiler.importers.graph_builder import GraphBuilder
from neuc.compiler.importers.inline_functions import inline_functions
from neuc.compiler.importers.library_steps import (
    PLACEHOLDER_BYTES,
    check_model,
    convert_opset,
    infer_shapes,
    make_shell,
    payload_type,
    restore_origins,
    verify_operations,
)
from neuc.compiler.importers.structure import check_operators, check_text, name_nodes, origins, sort_graph
from neuc.compiler.importers.symbols import Symbols
from neuc.compiler.importers.tensors import Payload, read_tensor
from neuc.dialects.context import NeucContext
from neuc.dialects.onnx import encode_name, set_opsets
from neuc.dialects.onnx_proto import type_from_proto
from neuc.errors import Error, NodeRef
from neuc.passes.infer_symbolic_shapes import infer_symbolic_shapes
from neuc.passes.module_facts import add_notes

MAX_FILE = 2**31 - 1
"""Protobuf's own limit."""
FIXED_INPUTS = "onnx.fixed_inputs"
"""Attribute of a module: the names of inputs that had default values and are constants now."""

Source = str | Path | bytes | ModelProto
Shapes = Mapping[str, Sequence[int | str]]


def import_onnx(source: Source, ctx: NeucContext, *, shapes: Shapes | None = None, name: str = "") -> ModuleOp:
    """Import a model.

    An input with a default value (an initializer of its name) is a constant of that value from here on. Of IR version 4
    and newer it could be fed; such names are listed in the module's attribute ``onnx.fixed_inputs``.

    Args:
        source: path of a file, its bytes, or a loaded model (left unchanged).
        ctx: its weight store receives the model's tensors.
        shapes: dims of some inputs, by input name: ints and symbol names.
        name: what to call the model in locations; the file's name if there is one.

    Raises:
        Error: NEUC-E103 to NEUC-E110; see `neuc explain`.
    """
    try:
        return _import(source, ctx, shapes or {}, name)
    except Error as error:
        raise _printable(error) from error


def _printable(error: Error) -> Error:
    """The error with names from the file escaped, so that it stays one line whatever they hold."""
    nodes = [NodeRef(_escaped(n.name), _escaped(n.op_type), _escaped(n.reason)) for n in error.nodes]
    return Error(error.code, _escaped(error.message), hint=error.hint, nodes=nodes, exit_code=error.exit_code)


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _import(source: Source, ctx: NeucContext, shapes: Shapes, name: str) -> ModuleOp:
    model, folder, file = _read(source, name)
    name_nodes(model.graph.node)
    for function in model.functions:
        name_nodes(function.node)
    check_operators(model)
    given = {info.name for info in model.graph.input}
    weights = _take_weights(model, folder)
    fixed = [name for name in weights if name in given and model.ir_version >= 4]
    found = origins(model.graph.node)
    inline_functions(model, found)
    sort_graph(model.graph)
    for output, origin in origins(model.graph.node).items():
        found.setdefault(output, origin)

    for what, infos in (("input", model.graph.input), ("output", model.graph.output)):
        for info in infos:
            check_dims(info, what)
    declared = [static_dims(info) for info in model.graph.output]
    freed = _freed(model.graph, shapes)
    symbols = Symbols()
    inputs = _input_types(model.graph, weights, symbols, shapes)
    shell = make_shell(model, weights, inputs)
    check_model(shell)
    shell, kept = convert_opset(shell)
    shell = infer_shapes(shell, inputs)
    if expand_function_bodies(shell, found):
        shell = infer_shapes(shell, inputs)

    for tensor in shell.graph.initializer:  # the converter may have added or changed small ones
        weights[tensor.name] = read_tensor(tensor, None, "the graph")
    builder = GraphBuilder(file, ctx.weights, symbols, restore_origins(shell.graph, found), folder)
    func = builder.function(shell.graph, inputs, weights)
    module = ModuleOp([func], sym_name=StringAttr(encode_name(Path(file).stem or "model")))
    set_opsets(module, {("" if o.domain == "ai.onnx" else o.domain): o.version for o in shell.opset_import})
    module.attributes["onnx.ir_version"] = IntegerAttr(shell.ir_version, i64)
    if kept:
        module.attributes["onnx.kept_opset"] = StringAttr(encode_name(kept))
    if fixed:
        module.attributes[FIXED_INPUTS] = ArrayAttr(StringAttr(encode_name(name)) for name in fixed)
    if freed:
        add_notes(module, *freed)
    verify_operations(module)
    _settle(module, ctx)
    check_outputs(func, declared)
    return module


def _read(source: Source, name: str) -> tuple[ModelProto, Path | None, str]:
    """The model as a message of our own, the folder of its external data, and the name for locations."""
    if isinstance(source, ModelProto):
        model = ModelProto()
        model.CopyFrom(source)
        folder, file, said = None, name or "model.onnx", name or "the model"
    else:
        folder, file, said, data = None, name or "model.onnx", name or "the model (bytes)", source
        if not isinstance(data, bytes):
            path = Path(data)
            folder, file = path.parent, name or path.name
            said = file
            data = _file_bytes(path)
        if not data:
            raise Error("NEUC-E103", f"{said} is empty", hint="export the model again")
        model = ModelProto()
        try:
            model.ParseFromString(data)
        except DecodeError as error:
            raise Error(
                "NEUC-E103", f"{said} is not an ONNX model, or is cut off or damaged", hint="export the model again"
            ) from error
    check_text(model)
    graph = model.graph
    if not model.HasField("graph") or not model.ir_version or not (graph.node or graph.output):
        raise Error("NEUC-E103", f"{said} holds no ONNX graph", hint="check that this is the right file")
    if not graph.output:
        raise Error("NEUC-E104", f"the graph of {said} has no outputs", hint="export the model again")
    if model.ir_version > onnx.IR_VERSION:
        raise Error(
            "NEUC-E109",
            f"{said} has IR version {model.ir_version}; versions up to {onnx.IR_VERSION} are known",
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
    given = {info.name: info for info in graph.input}
    for name, payload in weights.items():
        if name in given:
            check_default(given[name], *payload_type(payload))
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if node.op_type != "Constant" or node.domain or len(node.attribute) != 1 or len(node.output) != 1:
            continue
        (attribute,) = node.attribute
        large = attribute.name == "value" and attribute.t.ByteSize() > PLACEHOLDER_BYTES
        if large and node.output[0] not in weights and node.output[0] not in given:
            weights[node.output[0]] = read_tensor(attribute.t, folder, node.name)
            del graph.node[index]
    for name in weights:
        if name not in given:  # so that the structure checks know the name
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


def _freed(graph: GraphProto, shapes: Shapes) -> list[str]:
    """Notes: which dims that the model fixes the caller's shapes give a name, so that they may have any size."""
    notes: list[str] = []
    for info in graph.input:
        pairs = zip(info.type.tensor_type.shape.dim, shapes.get(info.name, ()))
        for index, (dim, given) in enumerate(pairs):
            if isinstance(given, str) and dim.HasField("dim_value"):
                what = f"dim {index} of input {_escaped(info.name)} is {dim.dim_value} in the model"
                notes.append(f"{what}; the shape given makes it {_escaped(given)}, any size")
    return notes


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


def _settle(module: ModuleOp, ctx: NeucContext) -> None:
    """Infer types and fold constants until nothing changes: each gives the other more to work with."""
    for _ in range(8):  # nested conditionals on constants take a round each
        facts = infer_symbolic_shapes(module, ctx.weights)
        if not fold_constants(module, facts):
            return
    infer_symbolic_shapes(module, ctx.weights)

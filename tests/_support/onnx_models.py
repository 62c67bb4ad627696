"""Builds small ONNX models and runs them, for tests of the graph level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func
from xdsl.parser import Parser
from xdsl.printer import Printer

from neuc.compiler.importers.onnx_file import import_onnx
from neuc.dialects.context import NeucContext
from neuc.dialects.onnx import Onnx
from neuc.dialects.store import Store

F, INT, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"

Dims = Sequence[int | str | None]


def value(name: str, dims: Dims | None, number: int = F) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, number, dims)


def node(op: str, inputs: str, outputs: str, **attributes: object) -> NodeProto:
    """A node; names are separated by spaces, `_` is an absent one. `name` names the node."""
    read, made = (["" if n == "_" else n for n in text.split()] for text in (inputs, outputs))
    name = attributes.pop("name", None)
    assert name is None or isinstance(name, str)
    return helper.make_node(op, read, made, name, None, None, None, **attributes)


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 21,
    domains: Mapping[str, int] | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
) -> ModelProto:
    arrays = [numpy_helper.from_array(np.asarray(a), name) for name, a in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), arrays)
    opsets = [helper.make_opsetid(d, v) for d, v in {"": opset, **(domains or {})}.items()]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)


def load(source: ModelProto | Path | bytes, **options: object) -> tuple[ModuleOp, NeucContext]:
    """Import and verify."""
    ctx = NeucContext()
    for dialect in (Builtin, Func, Store, Onnx):
        ctx.load_dialect(dialect)
    module = import_onnx(source, ctx, **options)  # type: ignore[arg-type]
    module.verify()
    return module, ctx


def text_of(module: ModuleOp) -> str:
    out = StringIO()
    Printer(out, print_debuginfo=True).print_op(module)
    return out.getvalue()


def reparsed(module: ModuleOp, ctx: NeucContext) -> ModuleOp:
    return Parser(ctx, text_of(module)).parse_module()


def run(source: ModelProto | Path, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs by onnxruntime without its optimisations."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    data = str(source) if isinstance(source, Path) else source.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return [np.asarray(out) for out in session.run(None, dict(feeds))]

"""An ONNX model as layers a = ρ(x W + b): cut at its activations, everything affine between two is one matrix.

The matrices are found by running the parts in onnxruntime on unit vectors.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper, shape_inference

from neuc.compiler.energy.networks import Layer, network_error

Array = np.ndarray
_ACTIVATIONS = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "Clip": "clip"}
_AFFINE = frozenset(
    "Add AveragePool BatchNormalization Cast Concat Constant Conv Div Dropout Flatten Gemm GlobalAveragePool Identity "
    "MatMul Mul Neg Pad ReduceMean Reshape Slice Squeeze Sub Transpose Unsqueeze".split()
)
MOST_WEIGHTS = 1 << 24
"""Entries of one matrix; a convolution's is inputs x outputs."""
_AFFINE_TOLERANCE = 1e-3
"""Relative difference between a part and its matrix on random inputs, in f32, that is rounding and no more."""


def layers_of(proto: onnx.ModelProto) -> list[Layer] | None:
    """The layers of a chain; None of a model that is none.

    Raises:
        Error: NEUC-E635, inputs or outputs that are not one of each, or a matrix would be too large.
    """
    proto = shape_inference.infer_shapes(proto, data_prop=True)
    graph = proto.graph
    known = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in known]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise network_error(f"the model has {len(inputs)} inputs and {len(graph.output)} outputs", "one of each")
    parts, begin, inside = list[tuple[str, str, str]](), inputs[0], {inputs[0]}
    varying = {inputs[0]}
    for node in graph.node:
        reads = [name for name in node.input if name in varying]
        if not reads:
            continue
        varying |= set(node.output)
        if any(name not in inside for name in reads) or _is_other_clip(node, graph):
            return None
        if node.op_type in _ACTIVATIONS:
            parts.append((begin, node.input[0], _ACTIVATIONS[node.op_type]))
            begin, inside = node.output[0], {node.output[0]}
        elif node.op_type in _AFFINE:
            inside |= set(node.output)
        else:
            return None
    if graph.output[0].name not in inside:
        return None
    if begin != graph.output[0].name:
        parts.append((begin, graph.output[0].name, "none"))
    layers = list[Layer]()
    for start, end, activation in parts:
        found = _matrix(proto, start, end)
        if found is None:
            return None
        layers.append(Layer(*found, activation))
    return layers


def loaded(path: str | os.PathLike[str] | onnx.ModelProto) -> onnx.ModelProto:
    """The model of a path, or the model itself."""
    if isinstance(path, onnx.ModelProto):
        return path
    try:
        return onnx.load(os.fspath(path))
    except (OSError, ValueError, DecodeError) as error:
        raise network_error(f"{os.fspath(path)} cannot be read: {error}", "the path of an ONNX model") from error


def _is_other_clip(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    """Whether it is a Clip, but not to 0 … 1, which is the range that `Layer` knows."""
    if node.op_type != "Clip":
        return False
    constants = {t.name: t for t in graph.initializer}
    constants |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant"}
    bounds = [float(numpy_helper.to_array(constants[n])) for n in node.input[1:] if n in constants]
    return bounds != [0.0, 1.0]


def _matrix(proto: onnx.ModelProto, start: str, end: str) -> tuple[Array, Array] | None:
    """W [in, out] and b [out] of the part between two tensors; None if it is not affine."""
    import onnxruntime as ort

    shape = _shape(proto, start)
    if start == end:
        return np.eye(prod(shape), dtype=np.float32), np.zeros(prod(shape), np.float32)
    part = onnx.utils.Extractor(proto).extract_model([start], [end])
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(rows: Array) -> Array:
        # One row at a time: a model's batch may be fixed, and reshapes may count on it.
        found = [session.run(None, {start: row.reshape(1, *shape)})[0] for row in rows]
        return np.stack([np.asarray(array).reshape(-1) for array in found])

    size = prod(shape)
    b = run(np.zeros((1, size), np.float32))[0]
    if size * len(b) > MOST_WEIGHTS:
        what = f"from {start} to {end} there are {size} x {len(b)} weights, more than {MOST_WEIGHTS}"
        raise network_error(what, "a smaller network, or smaller images")
    w = run(np.eye(size, dtype=np.float32)) - b
    probe = np.random.default_rng(0).normal(size=(2, size)).astype(np.float32)
    expected, found = probe @ w + b, run(probe)
    if not np.allclose(found, expected, atol=_AFFINE_TOLERANCE * max(1.0, float(np.abs(expected).max()))):
        return None
    return w.astype(np.float32), b.astype(np.float32)


def _shape(proto: onnx.ModelProto, name: str) -> Sequence[int]:
    """The shape of one sample of a tensor."""
    values = (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)
    dims = next((v.type.tensor_type.shape.dim for v in values if v.name == name), None)
    sizes = [] if dims is None else [d.dim_value for d in dims][1:]
    if not sizes or min(sizes) < 1:
        raise network_error(f"the shape of {name} is not known", "a model with known sizes except for the batch")
    return sizes

"""ONNX attribute messages as IR attributes. Subgraphs are the graph builder's business."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import AttributeProto, SparseTensorProto
from xdsl.dialects.builtin import (
    ArrayAttr,
    BytesAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
    f32,
    i64,
)
from xdsl.ir import Attribute

from neuc.compiler.importers.tensors import Payload, RawTensor, StringTensor, read_tensor
from neuc.dialects.onnx_proto import type_from_proto
from neuc.dialects.onnx_types import (
    ELEMENT_OF_ONNX,
    SparseAttr,
    StringsAttr,
    raw_tensor_attribute,
    tensor_attribute,
)
from neuc.dialects.weight_store import WeightStore


def string_attribute(data: bytes) -> StringAttr | BytesAttr:
    """A string; bytes where it is not plain ASCII, since string literals in IR text are."""
    return StringAttr(data.decode("ascii")) if data.isascii() else BytesAttr(data)


def payload_attribute(payload: Payload, name: str, store: WeightStore) -> Attribute:
    """A tensor attribute for what `read_tensor` read."""
    if isinstance(payload, np.ndarray):
        return tensor_attribute(name, payload, store)
    if isinstance(payload, RawTensor):
        type_ = TensorType(ELEMENT_OF_ONNX[payload.data_type], payload.dims)
        return raw_tensor_attribute(name, type_, payload.raw, store)
    assert isinstance(payload, StringTensor)
    values = ArrayAttr([string_attribute(value) for value in payload.values])
    return StringsAttr(TensorType(ELEMENT_OF_ONNX[8], payload.dims), values)


def sparse_attribute(sparse: SparseTensorProto, folder: Path | None, where: str, store: WeightStore) -> SparseAttr:
    """A sparse tensor attribute."""
    values = payload_attribute(read_tensor(sparse.values, folder, where), f"{where}.values", store)
    indices = payload_attribute(read_tensor(sparse.indices, folder, where), f"{where}.indices", store)
    return SparseAttr(values, indices, DenseArrayBase.from_list(i64, list(sparse.dims)))


def float_list(values: list[float]) -> Attribute:
    """A list of floats; xDSL's dense arrays cannot be read back with infinities in them."""
    if np.all(np.isfinite(values)):
        return DenseArrayBase.from_list(f32, values)
    return ArrayAttr([FloatAttr(value, f32) for value in values])


def attribute_from_proto(
    attribute: AttributeProto, folder: Path | None, where: str, store: WeightStore
) -> Attribute | None:
    """The IR attribute for a message; None if the IR has no form for it (lists of graphs, references).

    Raises:
        Error: a tensor's sizes are wrong.
    """
    match attribute.type:
        case AttributeProto.INT:
            return IntegerAttr(attribute.i, i64)
        case AttributeProto.FLOAT:
            return FloatAttr(attribute.f, f32)
        case AttributeProto.STRING:
            return string_attribute(attribute.s)
        case AttributeProto.TENSOR:
            return payload_attribute(read_tensor(attribute.t, folder, where), f"{where}.{attribute.name}", store)
        case AttributeProto.SPARSE_TENSOR:
            return sparse_attribute(attribute.sparse_tensor, folder, f"{where}.{attribute.name}", store)
        case AttributeProto.TYPE_PROTO:
            return type_from_proto(attribute.tp)
        case AttributeProto.INTS:
            return DenseArrayBase.from_list(i64, list(attribute.ints))
        case AttributeProto.FLOATS:
            return float_list(list(attribute.floats))
        case AttributeProto.STRINGS:
            return ArrayAttr([string_attribute(value) for value in attribute.strings])
        case AttributeProto.TENSORS:
            name = f"{where}.{attribute.name}"
            payloads = [read_tensor(tensor, folder, where) for tensor in attribute.tensors]
            return ArrayAttr([payload_attribute(p, f"{name}.{i}", store) for i, p in enumerate(payloads)])
        case AttributeProto.TYPE_PROTOS:
            return ArrayAttr([type_from_proto(proto) for proto in attribute.type_protos])
        case _:
            return None

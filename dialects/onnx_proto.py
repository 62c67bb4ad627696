"""From the `onnx` dialect to ONNX protobuf messages, node by node, and type messages back.

Exporters and type inference share this; reading whole files is `compiler/importers`, writing them `compiler/exporters`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto, TypeProto
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    ArrayAttr,
    BytesAttr,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    StringAttr,
    TensorType,
    UnrankedTensorType,
)
from xdsl.ir import Attribute, Region, TypeAttribute

from neuc.dialects.dims import Dim
from neuc.dialects.onnx_base import OnnxOp
from neuc.dialects.onnx_types import (
    ELEMENT_OF_ONNX,
    ONNX_OF_ELEMENT,
    MapType,
    OptionalType,
    SequenceType,
    SparseAttr,
    SparseTensorType,
    StoredAttr,
    StringsAttr,
    UnknownType,
    attribute_array,
)
from neuc.dialects.store import DimsAttr, tensor_type
from neuc.dialects.weight_store import WeightStore

DimReader = Callable[["TypeProto.Tensor | TypeProto.SparseTensor", int], Dim | None]
"""Reads dimension number i of a tensor type message; None where it is unknown."""


def read_dim(tensor: TypeProto.Tensor | TypeProto.SparseTensor, index: int) -> Dim | None:
    """A dimension whose parameter, if any, is an expression as `type_to_proto` writes them."""
    dim = tensor.shape.dim[index]
    if dim.HasField("dim_value"):
        return Dim.of(dim.dim_value) if dim.dim_value >= 0 else None
    try:
        return Dim.parse(dim.dim_param) if dim.dim_param else None
    except (ValueError, ZeroDivisionError):
        return None


def type_from_proto(proto: TypeProto, reader: DimReader = read_dim) -> Attribute:
    """The IR type of a type message; `!onnx.unknown` where it says nothing or uses what is not part of ONNX."""
    kind = proto.WhichOneof("value")
    if kind == "tensor_type":
        return _tensor_from_proto(proto.tensor_type, reader)
    if kind == "sequence_type":
        return SequenceType(type_from_proto(proto.sequence_type.elem_type, reader))
    if kind == "optional_type":
        return OptionalType(type_from_proto(proto.optional_type.elem_type, reader))
    if kind == "sparse_tensor_type":
        return SparseTensorType(_tensor_from_proto(proto.sparse_tensor_type, reader))
    if kind == "map_type" and proto.map_type.key_type in ELEMENT_OF_ONNX:
        return MapType(ELEMENT_OF_ONNX[proto.map_type.key_type], type_from_proto(proto.map_type.value_type, reader))
    return UnknownType()


def _tensor_from_proto(proto: TypeProto.Tensor | TypeProto.SparseTensor, reader: DimReader) -> Attribute:
    element = ELEMENT_OF_ONNX.get(proto.elem_type)
    if element is None:
        return UnknownType()
    if not proto.HasField("shape"):
        return UnrankedTensorType(element)
    return partial_tensor_type(element, [reader(proto, i) for i in range(len(proto.shape.dim))])


def partial_tensor_type(element: Attribute, dims: Sequence[Dim | None]) -> TensorType[Attribute]:
    """A tensor type; if any dim is unknown, symbolic ones are lost too (there is no encoding for half of them)."""
    if all(dim is not None for dim in dims):
        return tensor_type(element, [dim for dim in dims if dim is not None])
    return TensorType(element, [dim.value if dim is not None and dim.is_static else DYNAMIC_INDEX for dim in dims])


def type_to_proto(type_: Attribute) -> TypeProto:
    """The type message of an IR type; an empty one for `!onnx.unknown`.

    Raises:
        ValueError: not a type ONNX has.
    """
    proto = TypeProto()
    if isinstance(type_, TensorType):
        proto.tensor_type.elem_type = _number(type_.element_type)
        _write_dims(proto.tensor_type, type_)
    elif isinstance(type_, UnrankedTensorType):
        proto.tensor_type.elem_type = _number(type_.element_type)
    elif isinstance(type_, SequenceType):
        proto.sequence_type.elem_type.CopyFrom(type_to_proto(type_.element))
    elif isinstance(type_, OptionalType):
        proto.optional_type.elem_type.CopyFrom(type_to_proto(type_.element))
    elif isinstance(type_, MapType):
        proto.map_type.key_type = _number(type_.key)
        proto.map_type.value_type.CopyFrom(type_to_proto(type_.value))
    elif isinstance(type_, SparseTensorType):
        dense = type_.dense
        assert isinstance(dense, TensorType | UnrankedTensorType)
        proto.sparse_tensor_type.elem_type = _number(dense.element_type)
        if isinstance(dense, TensorType):
            _write_dims(proto.sparse_tensor_type, dense)
    elif not isinstance(type_, UnknownType):
        raise ValueError(f"ONNX has no type for {type_}")
    return proto


def _number(element: Attribute) -> int:
    number = ONNX_OF_ELEMENT.get(element)
    if number is None:
        raise ValueError(f"ONNX has no element type for {element}")
    return number


def _write_dims(proto: TypeProto.Tensor | TypeProto.SparseTensor, type_: TensorType[Attribute]) -> None:
    proto.shape.SetInParent()
    encoding = type_.encoding
    for index, size in enumerate(type_.get_shape()):
        dim = proto.shape.dim.add()
        if size >= 0:
            dim.dim_value = size
        elif isinstance(encoding, DimsAttr):
            dim.dim_param = encoding.exprs.data[index].data


def tensor_to_proto(attr: Attribute, store: WeightStore, name: str = "") -> TensorProto:
    """The tensor message of a tensor attribute.

    Raises:
        ValueError: not a tensor attribute.
    """
    array = attribute_array(attr, store)
    if array is not None:
        return onnx.numpy_helper.from_array(np.asarray(array), name)
    if not isinstance(attr, StoredAttr | StringsAttr) or not isinstance(attr.type, TensorType):
        raise ValueError(f"{attr} is not a tensor")
    proto = TensorProto(name=name, data_type=_number(attr.type.element_type), dims=attr.type.get_shape())
    if isinstance(attr, StoredAttr):
        proto.raw_data = store.get(attr.entry.data).tobytes()
    else:
        proto.string_data.extend(_bytes(value) for value in attr.values)
    return proto


def _bytes(attr: Attribute) -> bytes:
    if isinstance(attr, BytesAttr):
        return attr.data
    assert isinstance(attr, StringAttr)
    return attr.data.encode()


def attribute_to_proto(name: str, attr: Attribute, store: WeightStore) -> AttributeProto:
    """The message of an attribute other than a subgraph.

    Raises:
        ValueError: ONNX has no attribute of this kind.
    """
    proto = AttributeProto(name=name)
    match attr:
        case IntegerAttr():
            proto.type, proto.i = AttributeProto.INT, attr.value.data
        case FloatAttr():
            proto.type, proto.f = AttributeProto.FLOAT, attr.value.data
        case StringAttr() | BytesAttr():
            proto.type, proto.s = AttributeProto.STRING, _bytes(attr)
        case DenseIntOrFPElementsAttr() | StoredAttr() | StringsAttr():
            proto.type = AttributeProto.TENSOR
            proto.t.CopyFrom(tensor_to_proto(attr, store))
        case SparseAttr():
            proto.type = AttributeProto.SPARSE_TENSOR
            proto.sparse_tensor.CopyFrom(_sparse_to_proto(attr, store))
        case DenseArrayBase() if isinstance(attr.elt_type, IntegerType):
            proto.type = AttributeProto.INTS
            proto.ints.extend(int(v) for v in attr.iter_values())  # pyright: ignore[reportAttributeAccessIssue]
        case DenseArrayBase():
            proto.type = AttributeProto.FLOATS
            proto.floats.extend(float(v) for v in attr.iter_values())  # pyright: ignore[reportAttributeAccessIssue]
        case TypeAttribute():
            proto.type = AttributeProto.TYPE_PROTO
            proto.tp.CopyFrom(type_to_proto(attr))
        case ArrayAttr():
            _list_to_proto(proto, attr.data, store)
        case _:
            raise ValueError(f"attribute {name} = {attr} has no ONNX form")
    return proto


def _sparse_to_proto(attr: SparseAttr, store: WeightStore) -> SparseTensorProto:
    dims = [int(v) for v in attr.dims.iter_values()]  # pyright: ignore[reportAttributeAccessIssue]
    return SparseTensorProto(
        values=tensor_to_proto(attr.values, store), indices=tensor_to_proto(attr.indices, store), dims=dims
    )


def _list_to_proto(proto: AttributeProto, items: Sequence[Attribute], store: WeightStore) -> None:
    if all(isinstance(item, StringAttr | BytesAttr) for item in items):
        proto.type = AttributeProto.STRINGS
        proto.strings.extend(_bytes(item) for item in items)
    elif all(isinstance(item, FloatAttr) for item in items):
        proto.type = AttributeProto.FLOATS
        proto.floats.extend(item.value.data for item in items if isinstance(item, FloatAttr))
    elif all(isinstance(item, TypeAttribute) for item in items):
        proto.type = AttributeProto.TYPE_PROTOS
        proto.type_protos.extend(type_to_proto(item) for item in items)
    else:
        proto.type = AttributeProto.TENSORS
        proto.tensors.extend(tensor_to_proto(item, store) for item in items)


def node_to_proto(
    op: OnnxOp,
    inputs: Sequence[str],
    outputs: Sequence[str],
    store: WeightStore,
    *,
    name: str = "",
    graph: Callable[[str, Region], GraphProto] | None = None,
) -> NodeProto:
    """The node message of `op` with the given value names; `graph` writes its subgraphs.

    Raises:
        ValueError: an attribute has no ONNX form, or there are subgraphs but no `graph`.
    """
    node = NodeProto(op_type=op.op_type, domain=op.domain, input=inputs, output=outputs, name=name)
    for key, attr in op.attributes.items():
        if "." not in key:
            node.attribute.append(attribute_to_proto(key, attr, store))
    for key, region in op.graphs.items():
        if graph is None:
            raise ValueError(f"{op.full_name} has a subgraph {key}")
        node.attribute.append(AttributeProto(name=key, type=AttributeProto.GRAPH, g=graph(key, region)))
    return node

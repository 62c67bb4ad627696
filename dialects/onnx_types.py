"""Types and attributes of the `onnx` dialect, and ONNX's element type numbers as IR element types.

Knows ONNX's numbering but does not import onnx. Operations live in `onnx_base.py`, `onnx_special.py` and `onnx.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import (
    ArrayAttr,
    BFloat16Type,
    BytesAttr,
    ComplexType,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    Float4E2M1FNType,
    Float6E2M3FNType,
    Float6E3M2FNType,
    Float8E4M3FNType,
    Float8E4M3FNUZType,
    Float8E5M2FNUZType,
    Float8E5M2Type,
    Float8E8M0FNUType,
    IntegerType,
    Signedness,
    StringAttr,
    TensorType,
    UnrankedTensorType,
    f16,
    f32,
    f64,
    i1,
    i8,
    i16,
    i32,
    i64,
)
from xdsl.ir import Attribute, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition, param_def
from xdsl.parser import AttrParser
from xdsl.printer import Printer

from neuc.dialects.store import INLINE_LIMIT, element_type, keeps_every_bit, numpy_dtype, u8, u16, u32, u64
from neuc.dialects.weight_store import WeightStore


@irdl_attr_definition
class StringType(ParametrizedAttribute, TypeAttribute):
    """A string as tensor element."""

    name = "onnx.string"


@irdl_attr_definition
class NoneType(ParametrizedAttribute, TypeAttribute):
    """An optional input or output that is not there (an empty name in ONNX)."""

    name = "onnx.none_type"


@irdl_attr_definition
class UnknownType(ParametrizedAttribute, TypeAttribute):
    """A value about which neither the model nor inference says anything (results of foreign operators)."""

    name = "onnx.unknown"


@irdl_attr_definition
class SequenceType(ParametrizedAttribute, TypeAttribute):
    """A sequence of `element`s: `!onnx.seq<tensor<?xf32>>`."""

    name = "onnx.seq"
    element: Attribute = param_def()


@irdl_attr_definition
class OptionalType(ParametrizedAttribute, TypeAttribute):
    """`element` or nothing."""

    name = "onnx.optional"
    element: Attribute = param_def()


@irdl_attr_definition
class MapType(ParametrizedAttribute, TypeAttribute):
    """A map from `key` (an integer type or string) to `value`."""

    name = "onnx.map"
    key: Attribute = param_def()
    value: Attribute = param_def()


@irdl_attr_definition
class SparseTensorType(ParametrizedAttribute, TypeAttribute):
    """A sparse tensor with the shape and elements of `dense`."""

    name = "onnx.sparse_tensor"
    dense: Attribute = param_def()


@irdl_attr_definition
class StoredAttr(ParametrizedAttribute):
    """A tensor attribute whose elements are an entry of the weight store.

    Element types numpy lacks (bf16, float8, 4-bit integers …) are stored as their raw bytes.
    """

    name = "onnx.stored"
    type: Attribute = param_def()
    entry: StringAttr = param_def()
    sha: StringAttr = param_def()


@irdl_attr_definition
class StringsAttr(ParametrizedAttribute):
    """A tensor attribute of strings, row-major."""

    name = "onnx.strings"
    type: Attribute = param_def()
    values: ArrayAttr[StringAttr | BytesAttr] = param_def()


@irdl_attr_definition
class SparseAttr(ParametrizedAttribute):
    """A sparse tensor attribute in coordinate form."""

    name = "onnx.sparse"
    values: Attribute = param_def()
    indices: Attribute = param_def()
    dims: DenseArrayBase = param_def()

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            return parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_attribute)

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_list((self.values, self.indices, self.dims), printer.print_attribute)


TensorAttr = DenseIntOrFPElementsAttr | StoredAttr | StringsAttr
"""What an ONNX attribute of kind TENSOR becomes."""

_i4, _i2 = IntegerType(4), IntegerType(2)
_u4, _u2 = IntegerType(4, Signedness.UNSIGNED), IntegerType(2, Signedness.UNSIGNED)

# TensorProto.DataType numbers, which are part of the file format and never change.
ELEMENT_OF_ONNX: dict[int, Attribute] = {
    1: f32, 2: u8, 3: i8, 4: u16, 5: i16, 6: i32, 7: i64, 8: StringType(), 9: i1, 10: f16, 11: f64, 12: u32,
    13: u64, 14: ComplexType(f32), 15: ComplexType(f64), 16: BFloat16Type(), 17: Float8E4M3FNType(),
    18: Float8E4M3FNUZType(), 19: Float8E5M2Type(), 20: Float8E5M2FNUZType(), 21: _u4, 22: _i4,
    23: Float4E2M1FNType(), 24: Float8E8M0FNUType(), 25: _u2, 26: _i2, 27: Float6E2M3FNType(),
    28: Float6E3M2FNType(),
}  # fmt: skip
ONNX_OF_ELEMENT: dict[Attribute, int] = {element: number for number, element in ELEMENT_OF_ONNX.items()}

# Names used in the type strings of schemas, such as "tensor(float)".
SCHEMA_NAME: dict[int, str] = {
    1: "float", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "double", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8e4m3fn", 18: "float8e4m3fnuz", 19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4e2m1", 24: "float8e8m0", 25: "uint2", 26: "int2", 27: "float6e2m3", 28: "float6e3m2",
}  # fmt: skip

# Bits an element takes in a packed file; strings have none.
BITS: dict[int, int] = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2, 27: 6, 28: 6,
}  # fmt: skip


def schema_type_name(type_: Attribute) -> str | None:
    """The type as schemas write it, ``tensor(float)``; None for absent, unknown or foreign types."""
    match type_:
        case TensorType() | UnrankedTensorType():
            number = ONNX_OF_ELEMENT.get(type_.get_element_type())
            return None if number is None else f"tensor({SCHEMA_NAME[number]})"
        case SequenceType():
            inner = schema_type_name(type_.element)
            return None if inner is None else f"seq({inner})"
        case OptionalType():
            inner = schema_type_name(type_.element)
            return None if inner is None else f"optional({inner})"
        case SparseTensorType():
            inner = schema_type_name(type_.dense)
            return None if inner is None else f"sparse_{inner}"
        case MapType():
            key, value = ONNX_OF_ELEMENT.get(type_.key), ONNX_OF_ELEMENT.get(type_.value)
            inner = SCHEMA_NAME[value] if value is not None else schema_type_name(type_.value)
            return None if key is None or inner is None else f"map({SCHEMA_NAME[key]}, {inner})"
        case _:
            return None


def tensor_attribute(name: str, array: np.ndarray, store: WeightStore) -> TensorAttr:
    """A tensor attribute for `array`; small ones are inline, others go to the store as `name`.

    Raises:
        ValueError: numpy dtype without an element type.
    """
    element = element_type(array.dtype)
    if element is None:
        raise ValueError(f"tensor {name!r} has dtype {array.dtype}")
    type_ = TensorType(element, array.shape)
    # Unsigned and half-precision types would not be told from their signless and wider kin in the text.
    typed = array.dtype.kind in "ib" or array.dtype in (np.float32, np.float64)
    if 0 < array.size <= INLINE_LIMIT and typed and keeps_every_bit(array):
        values = [float(v) if array.dtype.kind == "f" else int(v) for v in array.reshape(-1)]
        return DenseIntOrFPElementsAttr.from_list(type_, values)  # pyright: ignore
    key = store.add(name, array)
    return StoredAttr(type_, StringAttr(key), StringAttr(store.sha(key)[:12]))


def raw_tensor_attribute(name: str, type_: Attribute, raw: bytes, store: WeightStore) -> StoredAttr:
    """A tensor attribute from packed little-endian bytes of an element type numpy lacks."""
    key = store.add(name, np.frombuffer(raw, np.uint8))
    return StoredAttr(type_, StringAttr(key), StringAttr(store.sha(key)[:12]))


def small_integers(attr: Attribute, store: WeightStore) -> np.ndarray | None:
    """The elements of a tensor attribute of 2- or 4-bit integers, a byte each; None for any other attribute.

    ONNX packs them from the low bits of each byte on.
    """
    if not (isinstance(attr, StoredAttr) and isinstance(attr.type, TensorType)):
        return None
    element, shape = attr.type.get_element_type(), attr.type.get_shape()
    if element not in (_i2, _i4, _u2, _u4):
        return None
    bits = element.width.data
    raw = store.get(attr.entry.data).reshape(-1, 1)
    codes = ((raw >> np.arange(0, 8, bits, dtype=np.uint8)) & np.uint8(2**bits - 1)).reshape(-1)
    codes = codes[: int(np.prod(shape, dtype=np.int64))].reshape(shape)
    if element in (_u2, _u4):
        return codes
    half = np.int8(2 ** (bits - 1))
    return (codes.astype(np.int8) ^ half) - half


def attribute_array(attr: Attribute, store: WeightStore) -> np.ndarray | None:
    """The elements of a numeric tensor attribute; None for strings and for types numpy lacks."""
    if isinstance(attr, DenseIntOrFPElementsAttr):
        type_ = attr.type
        dtype = numpy_dtype(type_.get_element_type())
        assert dtype is not None
        values = list(attr.get_values())
        if len(values) == 1:
            values = values * int(np.prod(type_.get_shape()))
        return (
            np.array(values, dtype=np.float64 if dtype.kind == "f" else np.int64)
            .astype(dtype)
            .reshape(type_.get_shape())
        )
    if isinstance(attr, StoredAttr) and isinstance(attr.type, TensorType):
        dtype = numpy_dtype(attr.type.get_element_type())
        return None if dtype is None else store.get(attr.entry.data).reshape(attr.type.get_shape())
    return None

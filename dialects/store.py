"""The `store` dialect: constants on every level, and the dims a dynamic tensor type carries.

`store.constant` names an entry of the weight store, or holds up to 16 elements inline so that they can be read and
edited. `#store.dims<"B", "384">` is the encoding of a tensor type with symbolic dims. No arrays live here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    ArrayAttr,
    DenseIntOrFPElementsAttr,
    IntegerType,
    Signedness,
    StringAttr,
    TensorType,
    f16,
    f32,
    f64,
    i1,
    i8,
    i16,
    i32,
    i64,
)
from xdsl.ir import Attribute, Dialect, ParametrizedAttribute, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_attr_definition,
    irdl_op_definition,
    opt_prop_def,
    param_def,
    result_def,
    traits_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from neuc.dialects.dims import Dim, DimLike, product
from neuc.dialects.float_text import dense_reads_back
from neuc.dialects.spike_types import EventType
from neuc.dialects.weight_store import WeightStore

INLINE_LIMIT = 16

u8 = IntegerType(8, Signedness.UNSIGNED)
u16 = IntegerType(16, Signedness.UNSIGNED)
u32 = IntegerType(32, Signedness.UNSIGNED)
u64 = IntegerType(64, Signedness.UNSIGNED)

_NUMPY: dict[Attribute, np.dtype] = {
    f32: np.dtype(np.float32),
    f64: np.dtype(np.float64),
    f16: np.dtype(np.float16),
    i1: np.dtype(np.bool_),
    i8: np.dtype(np.int8),
    i16: np.dtype(np.int16),
    i32: np.dtype(np.int32),
    i64: np.dtype(np.int64),
    u8: np.dtype(np.uint8),
    u16: np.dtype(np.uint16),
    u32: np.dtype(np.uint32),
    u64: np.dtype(np.uint64),
}
_ELEMENT = {dtype: element for element, dtype in _NUMPY.items()}


def numpy_dtype(element: Attribute) -> np.dtype | None:
    """The numpy dtype of an element type, or None where numpy has none (bf16, strings …)."""
    if isinstance(element, EventType):
        return np.dtype(np.int8)
    return _NUMPY.get(element)


def element_type(dtype: np.dtype) -> Attribute | None:
    """The element type of a numpy dtype, or None."""
    return _ELEMENT.get(np.dtype(dtype))


@irdl_attr_definition
class DimsAttr(ParametrizedAttribute):
    """The dims of a tensor type with symbols: `#store.dims<"B", "S", "384">`."""

    name = "store.dims"
    exprs: ArrayAttr[StringAttr] = param_def()

    @staticmethod
    def of(dims: Iterable[DimLike]) -> DimsAttr:
        return DimsAttr(ArrayAttr([StringAttr(str(Dim.of(d))) for d in dims]))

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            texts = parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_str_literal)
        return [ArrayAttr([StringAttr(text) for text in texts])]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_list(self.exprs.data, printer.print_attribute)

    def verify(self) -> None:
        for expr in self.exprs.data:
            try:
                Dim.parse(expr.data)
            except (ValueError, ZeroDivisionError) as error:
                raise VerifyException(str(error)) from error

    def dims(self) -> tuple[Dim, ...]:
        return tuple(Dim.parse(expr.data) for expr in self.exprs.data)


def tensor_type(element: Attribute, dims: Sequence[DimLike]) -> TensorType[Attribute]:
    """A tensor type; symbolic dims are printed ``?`` and named in its `#store.dims` encoding."""
    exact = [Dim.of(d) for d in dims]
    shape = [d.value if d.is_static else DYNAMIC_INDEX for d in exact]
    if DYNAMIC_INDEX in shape:
        return TensorType(element, shape, DimsAttr.of(exact))
    return TensorType(element, shape)


def dims_of(value: Attribute | SSAValue) -> tuple[Dim, ...]:
    """The dims of a tensor type or of a value that has one.

    Raises:
        ValueError: not a tensor, or a dynamic tensor without `#store.dims`.
    """
    type_ = value.type if isinstance(value, SSAValue) else value
    # Not xDSL's `isa`, which walks the constraint of the parameter: this is the most called function there is.
    if not isinstance(type_, TensorType):
        raise ValueError(f"not a ranked tensor type: {type_}")
    shape = type_.get_shape()
    if DYNAMIC_INDEX not in shape:
        return tuple(Dim.of(d) for d in shape)
    if not isinstance(type_.encoding, DimsAttr):
        raise ValueError(f"{type_} has dynamic dims without names")
    dims = type_.encoding.dims()
    if len(dims) != len(shape):
        raise ValueError(f"{type_} names {len(dims)} dims for rank {len(shape)}")
    return dims


def element_of(value: Attribute | SSAValue) -> Attribute:
    """The element type of a tensor type or of a value that has one."""
    type_ = value.type if isinstance(value, SSAValue) else value
    if not isinstance(type_, TensorType):
        raise ValueError(f"not a tensor type: {type_}")
    return type_.get_element_type()


def num_elements(value: Attribute | SSAValue) -> Dim:
    """The number of elements of a tensor type or of a value that has one."""
    return product(dims_of(value))


@irdl_op_definition
class ConstantOp(IRDLOperation):
    """A constant tensor: an entry of the weight store, or up to 16 elements inline."""

    name = "store.constant"
    entry = opt_prop_def(StringAttr)
    sha = opt_prop_def(StringAttr)
    value = opt_prop_def(DenseIntOrFPElementsAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    assembly_format = "($entry^)? (`sha` $sha^)? (`value` $value^)? attr-dict `:` type($result)"

    def verify_(self) -> None:
        if (self.entry is None) == (self.value is None):
            raise VerifyException("needs either an entry or an inline value")
        if self.value is not None and self.value.type != _plain(self.result.type):
            raise VerifyException(f"inline value has type {self.value.type}, result {self.result.type}")


def _plain(type_: Attribute) -> TensorType[Attribute]:
    """`type_` with unsigned elements made signless, as dense attributes of xDSL want them."""
    assert isa(type_, TensorType[Attribute])
    element = type_.get_element_type()
    if isinstance(element, IntegerType) and element.signedness.data is not Signedness.SIGNLESS:
        return TensorType(IntegerType(element.width.data), type_.get_shape())
    return type_


def make_constant(name: str, array: np.ndarray, store: WeightStore) -> ConstantOp:
    """A `store.constant` for `array`: inline when small, else added to the store as `name`.

    Raises:
        ValueError: numpy dtype without an element type.
    """
    element = element_type(array.dtype)
    if element is None:
        raise ValueError(f"constant {name!r} has dtype {array.dtype}, which tensors here cannot hold")
    type_ = TensorType(element, array.shape)
    if 0 < array.size <= INLINE_LIMIT and keeps_every_bit(array):
        plain = _plain(type_)
        signless = array.astype(f"i{array.dtype.itemsize}") if array.dtype.kind == "u" else array
        convert = float if array.dtype.kind == "f" else int
        values = [convert(v) for v in signless.reshape(-1).tolist()]
        value = DenseIntOrFPElementsAttr.from_list(plain, values)  # pyright: ignore[reportCallIssue, reportArgumentType]
        return ConstantOp.create(result_types=[type_], properties={"value": value})
    key = store.add(name, array)
    return ConstantOp.create(
        result_types=[type_],
        properties={"entry": StringAttr(key), "sha": StringAttr(store.sha(key)[:12])},
    )


def _inline_array(value: DenseIntOrFPElementsAttr, type_: Attribute) -> np.ndarray:
    assert isa(type_, TensorType[Attribute])
    dtype = numpy_dtype(type_.get_element_type())
    assert dtype is not None
    values = list(value.get_values())
    flat = np.array(values, dtype=np.float64 if dtype.kind == "f" else np.int64)
    if len(values) == 1:
        flat = np.repeat(flat, int(np.prod(type_.get_shape())))
    if dtype.kind == "u":
        flat = flat.astype(f"i{dtype.itemsize}").view(dtype)
    return flat.astype(dtype).reshape(type_.get_shape())


def keeps_every_bit(array: np.ndarray) -> bool:
    """Whether the inline form can hold `array` (NaN, infinities, signed zeros and the like go to the store instead)."""
    if array.dtype.kind != "f":
        return True
    if bool(np.any((array == 0) & np.signbit(array))):
        return False
    return dense_reads_back(array.reshape(-1).tolist(), array.dtype.itemsize * 8)


def constant_array(op: ConstantOp, store: WeightStore) -> np.ndarray:
    """The array of a constant.

    Raises:
        neuc.errors.Error: NEUC-E201, its entry is missing; NEUC-E203, the entry has another type or content.
    """
    from neuc.errors import Error

    if op.value is not None:
        return _inline_array(op.value, op.result.type)
    assert op.entry is not None
    array = store.get(op.entry.data)
    type_ = op.result.type
    assert isa(type_, TensorType[Attribute])
    if tuple(type_.get_shape()) != array.shape or numpy_dtype(type_.get_element_type()) != array.dtype:
        raise Error(
            "NEUC-E203",
            f"constant {op.entry.data!r} is {array.dtype}{list(array.shape)} in the weight store but {type_} in the IR",
            hint="keep the .mlir and its .weights.safetensors together",
        )
    if op.sha is not None and not store.sha(op.entry.data).startswith(op.sha.data):
        raise Error(
            "NEUC-E203",
            f"constant {op.entry.data!r} has other content than the IR was written with",
            hint="keep the .mlir and its .weights.safetensors together",
        )
    return array


def constant_value(value: SSAValue, store: WeightStore) -> np.ndarray | None:
    """The array behind `value` if a `store.constant` produces it, else None."""
    owner = value.owner
    return constant_array(owner, store) if isinstance(owner, ConstantOp) else None


Store = Dialect("store", [ConstantOp], [DimsAttr])

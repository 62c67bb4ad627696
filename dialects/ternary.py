"""The `ternary` dialect: weights with few levels, int8 activations, and the exact integer products between them.

Types are in `ternary_types.py`, operations on matrices alone in `ternary_rows.py`, on packed ones in
`ternary_packed.py`, meaning in `interp/ternary.py`. No file formats and no passes here.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from math import prod

from xdsl.dialects.builtin import (
    DenseArrayBase,
    IntegerAttr,
    TensorType,
    UnitAttr,
    f32,
    i8,
    i32,
    i64,
)
from xdsl.ir import Attribute, Dialect, Operation, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense_attrs import NO_ACTIVATION, ActivationAttr, flag, int_attr
from neuc.dialects.dims import Dim, product
from neuc.dialects.store import dims_of, tensor_type
from neuc.dialects.ternary_packed import AccumulateOp, PackOp
from neuc.dialects.ternary_rows import LookupOp, WeightOp
from neuc.dialects.ternary_types import EncodingAttr, PackedType, ScaleAttr, TritsType, Window, trits_type


def _verify_bias(bias: SSAValue | None, rows: int) -> None:
    if bias is not None:
        shapes.check_dims("bias", shapes.shape_of(bias, "bias", f32), [Dim.of(rows)])


@irdl_op_definition
class QuantizeOp(IRDLOperation):
    """a = 127 / max(max|x|, 1e-5) over the last `axes` axes; q = clip(round(x·a), -127, 127), s = 1/a.

    With `reciprocal`, a = (1 / max) · 127, which rounds twice: so exporters write the quotient.
    """

    name = "ternary.quantize"
    x = operand_def(TensorType)
    axes = prop_def(IntegerAttr.constr(i64), default_value=int_attr(1))
    reciprocal = opt_prop_def(UnitAttr)
    q = result_def(TensorType)
    s = result_def(TensorType)

    traits = traits_def(Pure())
    assembly_format = (
        "$x (`axes` $axes^)? (`reciprocal` $reciprocal^)? attr-dict `:` type($x) `->` type($q) `,` type($s)"
    )

    def __init__(self, x: SSAValue | Operation, axes: int = 1, *, reciprocal: bool = False) -> None:
        dims = dims_of(SSAValue.get(x))
        results = [tensor_type(i8, dims), tensor_type(f32, dims[: len(dims) - axes])]
        properties = {"axes": int_attr(axes), "reciprocal": flag(reciprocal)}
        super().__init__(operands=[x], result_types=results, properties=properties)

    @property
    def shared_axes(self) -> int:
        return self.axes.value.data

    def verify_(self) -> None:
        dims = shapes.shape_of(self.x, "x", f32)
        if not 1 <= self.shared_axes <= len(dims):
            raise VerifyException(f"axes = {self.shared_axes}, but x has rank {len(dims)}")
        shapes.check_dims("q", shapes.shape_of(self.q, "q", i8), dims)
        shapes.check_dims("s", shapes.shape_of(self.s, "s", f32), dims[: len(dims) - self.shared_axes])


class ProductOp(IRDLOperation, ABC):
    """Operands and activation that `ternary.linear` and `ternary.conv` share.

    `offset` is added to every q first: activations 0 … 255 are q = activation - 128 with offset 128.
    """

    q = operand_def(TensorType)
    s = operand_def(TensorType)
    weight = operand_def(TritsType)
    bias = opt_operand_def(TensorType)
    offset = prop_def(IntegerAttr.constr(i64), default_value=int_attr(0))
    activation = prop_def(ActivationAttr, default_value=NO_ACTIVATION)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    @property
    def trits(self) -> TritsType:
        return trits_type(self.weight)

    @property
    def code_offset(self) -> int:
        return self.offset.value.data

    def _verify_offset(self) -> None:
        trits = self.trits
        largest = (128 + abs(self.code_offset)) * max(map(abs, trits.level_set)) * trits.group_size
        if self.code_offset and largest >= 2**31:
            raise VerifyException(f"offset = {self.code_offset}: sums of {trits.group_size} products pass int32")


@irdl_op_definition
class LinearOp(ProductOp):
    """y[…,n] = activation(Σ_p Σ_g scales[p,n,g]·(Σ_{k in g} (q[…,k] + offset)·trits[p,n,k])·s + bias[n])."""

    name = "ternary.linear"
    assembly_format = (
        "$q `,` $s `,` $weight (`bias` $bias^)? (`offset` $offset^)? (`activation` $activation^)? attr-dict "
        "`:` functional-type(operands, results)"
    )

    def __init__(
        self,
        q: SSAValue,
        s: SSAValue,
        weight: SSAValue,
        bias: SSAValue | None = None,
        activation: ActivationAttr = NO_ACTIVATION,
        result_type: Attribute | None = None,
        offset: int = 0,
    ) -> None:
        result = result_type or tensor_type(f32, [*dims_of(q)[:-1], trits_type(weight).rows])
        properties: dict[str, Attribute | None] = {"activation": activation, "offset": int_attr(offset)}
        super().__init__(operands=[q, s, weight, bias], result_types=[result], properties=properties)

    def verify_(self) -> None:
        dims = shapes.shape_of(self.q, "q", i8)
        if not dims:
            raise VerifyException("q is a scalar, expected […, K]")
        shapes.check_dims("q", dims, [*dims[:-1], Dim.of(self.trits.columns)])
        shapes.check_dims("s", shapes.shape_of(self.s, "s", f32), dims[:-1])
        _verify_bias(self.bias, self.trits.rows)
        self._verify_offset()
        shapes.check_dims("result", shapes.shape_of(self.result, "result", f32), [*dims[:-1], Dim.of(self.trits.rows)])


class WindowedOp(IRDLOperation, ABC):
    """The window of `ternary.conv` and `ternary.im2col`: pads are begins then ends, padded activations are 0."""

    kernel = prop_def(DenseArrayBase.constr(i64))
    strides = prop_def(DenseArrayBase.constr(i64))
    pads = prop_def(DenseArrayBase.constr(i64))
    dilations = prop_def(DenseArrayBase.constr(i64))

    def window(self) -> Window:
        """The window as plain integers."""
        return Window(*(tuple(a.get_values()) for a in (self.kernel, self.strides, self.pads, self.dilations)))

    def _verify_window(self, rank: int) -> Window:
        window, spatial = self.window(), rank - 2
        if spatial < 1:
            raise VerifyException(f"q has rank {rank}, expected [N, C, …spatial]")
        for name, expected in (
            ("kernel", spatial),
            ("strides", spatial),
            ("pads", 2 * spatial),
            ("dilations", spatial),
        ):
            values: tuple[int, ...] = getattr(window, name)
            if len(values) != expected:
                raise VerifyException(f"{name} has {len(values)} entries, expected {expected} for rank {rank}")
            least = 0 if name == "pads" else 1
            if any(value < least for value in values):
                raise VerifyException(f"{name} = {list(values)} has an entry below {least}")
        return window


_WINDOW_FORMAT = "`kernel` $kernel `strides` $strides `pads` $pads `dilations` $dilations "


@irdl_op_definition
class ConvOp(ProductOp, WindowedOp):
    """y = activation(conv(q + offset, Σ_p scales[p]·trits[p] as [N, C/group, …kernel])·s + bias), one s per image.

    With an offset there are no pads: what they would hold is for q to say.
    """

    name = "ternary.conv"
    group = prop_def(IntegerAttr.constr(i64), default_value=int_attr(1))

    assembly_format = (
        "$q `,` $s `,` $weight (`bias` $bias^)? (`offset` $offset^)? " + _WINDOW_FORMAT + "(`group` $group^)? "
        "(`activation` $activation^)? attr-dict `:` functional-type(operands, results)"
    )

    def __init__(
        self,
        q: SSAValue,
        s: SSAValue,
        weight: SSAValue,
        window: Window,
        bias: SSAValue | None = None,
        group: int = 1,
        activation: ActivationAttr = NO_ACTIVATION,
        result_type: Attribute | None = None,
        offset: int = 0,
    ) -> None:
        dims = dims_of(q)
        result = result_type or tensor_type(f32, [dims[0], trits_type(weight).rows, *window.output_dims(dims[2:])])
        properties: dict[str, Attribute | None] = {
            **window.properties(),
            "group": int_attr(group),
            "offset": int_attr(offset),
            "activation": activation,
        }
        super().__init__(operands=[q, s, weight, bias], result_types=[result], properties=properties)

    @property
    def group_count(self) -> int:
        return self.group.value.data

    def verify_(self) -> None:
        dims = shapes.shape_of(self.q, "q", i8)
        window = self._verify_window(len(dims))
        n, k, group = self.trits.rows, self.trits.columns, self.group_count
        if group < 1 or n % group:
            raise VerifyException(f"group = {group} does not divide the {n} output channels")
        channels, rest = divmod(k * group, prod(window.kernel))
        if rest or shapes.differ(dims[1], Dim.of(channels)):
            raise VerifyException(
                f"K = {k} is not C/group·kernel for C = {dims[1]}, group = {group}, kernel = {list(window.kernel)}"
            )
        shapes.check_dims("s", shapes.shape_of(self.s, "s", f32), dims[:1])
        _verify_bias(self.bias, n)
        self._verify_offset()
        if self.code_offset and any(window.pads):
            raise VerifyException(f"offset = {self.code_offset} and pads {list(window.pads)}: pad q itself")
        expected = [dims[0], Dim.of(n), *window.output_dims(dims[2:])]
        shapes.check_dims("result", shapes.shape_of(self.result, "result", f32), expected)


@irdl_op_definition
class Im2ColOp(WindowedOp):
    """patches[n, p, :] = the window of q under output pixel p, channel-major as the weights are."""

    name = "ternary.im2col"
    q = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    assembly_format = "$q " + _WINDOW_FORMAT + "attr-dict `:` type($q) `->` type($result)"

    def __init__(self, q: SSAValue, window: Window) -> None:
        super().__init__(
            operands=[q],
            result_types=[tensor_type(i8, _patch_dims(dims_of(q), window))],
            properties=window.properties(),
        )

    def verify_(self) -> None:
        dims = shapes.shape_of(self.q, "q", i8)
        window = self._verify_window(len(dims))
        shapes.check_dims("result", shapes.shape_of(self.result, "result", i8), _patch_dims(dims, window))


def _patch_dims(dims: Sequence[Dim], window: Window) -> list[Dim]:
    return [dims[0], product(window.output_dims(dims[2:])), dims[1] * prod(window.kernel)]


@irdl_op_definition
class DequantizeOp(IRDLOperation):
    """y = 0; for p, for g: y += f32(acc[…,g,p·N+n])·scales[p,n,g]; y·s, then + bias[n], then activation."""

    name = "ternary.dequantize"
    acc = operand_def(TensorType)
    s = operand_def(TensorType)
    weight = operand_def(TritsType)
    bias = opt_operand_def(TensorType)
    activation = prop_def(ActivationAttr, default_value=NO_ACTIVATION)
    result = result_def(TensorType)

    traits = traits_def(Pure())
    assembly_format = (
        "$acc `,` $s `,` $weight (`bias` $bias^)? (`activation` $activation^)? attr-dict "
        "`:` functional-type(operands, results)"
    )

    def __init__(
        self,
        acc: SSAValue,
        s: SSAValue,
        weight: SSAValue,
        bias: SSAValue | None = None,
        activation: ActivationAttr = NO_ACTIVATION,
        result_type: Attribute | None = None,
    ) -> None:
        result = result_type or tensor_type(f32, [*dims_of(acc)[:-2], trits_type(weight).rows])
        properties: dict[str, Attribute | None] = {"activation": activation}
        super().__init__(operands=[acc, s, weight, bias], result_types=[result], properties=properties)

    def verify_(self) -> None:
        trits, dims = trits_type(self.weight), shapes.shape_of(self.acc, "accumulator", i32)
        tail = [Dim.of(trits.groups), Dim.of(trits.plane_count * trits.rows)]
        shapes.check_dims("accumulator", dims, [*dims[:-2], *tail])
        scale = shapes.shape_of(self.s, "s", f32)
        shapes.check_dims("s", scale, dims[: min(len(scale), len(dims) - 2)])
        _verify_bias(self.bias, trits.rows)
        shapes.check_dims("result", shapes.shape_of(self.result, "result", f32), [*dims[:-2], Dim.of(trits.rows)])


Ternary = Dialect(
    "ternary",
    [WeightOp, LookupOp, QuantizeOp, LinearOp, ConvOp, Im2ColOp, PackOp, AccumulateOp, DequantizeOp],
    [ScaleAttr, EncodingAttr, TritsType, PackedType],
)

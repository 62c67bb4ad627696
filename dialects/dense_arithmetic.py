"""The `dense` operations with arithmetic kernels of their own: softmax, layer_norm, matmul, conv, pool, lstm.

Registered by `dense.py`; what applies a scalar body or a reduction is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from xdsl.dialects.builtin import (
    DenseArrayBase,
    Float32Type,
    FloatAttr,
    IntegerAttr,
    TensorType,
    UnitAttr,
    f32,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
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
from neuc.dialects.dense_attrs import (
    NO_ACTIVATION,
    ActivationAttr,
    DenseOp,
    Direction,
    DirectionAttr,
    PoolKind,
    PoolKindAttr,
    flag,
    int_attr,
    ints,
)
from neuc.dialects.dims import Dim
from neuc.dialects.spike_types import Numeric

_I64S = DenseArrayBase.constr(i64)
_I64 = IntegerAttr.constr(i64)


@irdl_op_definition
class SoftmaxOp(DenseOp):
    """result = exp(x − max) / Σ exp(x − max) over `axis`; its logarithm with `log`."""

    name = "dense.softmax"
    x = operand_def(TensorType)
    axis = prop_def(_I64)
    log = opt_prop_def(UnitAttr)
    result = result_def(TensorType)
    traits = traits_def(Pure(), Numeric())

    def __init__(self, x: SSAValue, axis: int, log: bool = False) -> None:
        super().__init__(operands=[x], result_types=[x.type], properties={"axis": int_attr(axis), "log": flag(log)})

    def verify_(self) -> None:
        dims = shapes.dims(self.x)
        shapes.check_axes("axis", [self.axis.value.data], len(dims))
        shapes.check("result", self.result, dims, f32)


@irdl_op_definition
class LayerNormOp(DenseOp):
    """result = (x − mean) / √(var + eps) · scale + bias over the axes from `axis` on; `rms`: x / √(mean(x²) + eps)."""

    name = "dense.layer_norm"
    x = operand_def(TensorType)
    scale = opt_operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    axis = prop_def(_I64)
    eps = prop_def(FloatAttr[Float32Type])
    rms = opt_prop_def(UnitAttr)
    result = result_def(TensorType)
    traits = traits_def(Pure(), Numeric())
    irdl_options = (AttrSizedOperandSegments(as_property=True),)

    def __init__(
        self,
        x: SSAValue,
        scale: SSAValue | None,
        bias: SSAValue | None,
        *,
        axis: int,
        eps: float,
        rms: bool = False,
    ) -> None:
        super().__init__(
            operands=[x, scale, bias],
            result_types=[x.type],
            properties={"axis": int_attr(axis), "eps": FloatAttr(eps, f32), "rms": flag(rms)},
        )

    def verify_(self) -> None:
        dims, axis = shapes.dims(self.x), self.axis.value.data
        shapes.check_axes("axis", [axis], len(dims))
        shapes.check("result", self.result, dims, f32)
        if self.bias is not None and self.scale is None:
            raise VerifyException("bias needs a scale before it")
        for name, value in (("scale", self.scale), ("bias", self.bias)):
            if value is not None:
                shapes.check_broadcastable(name, shapes.dims(value), dims[axis:])


@irdl_op_definition
class MatMulOp(DenseOp):
    """result[…,m,n] = activation(alpha · Σ_k a[…,m,k] · b[…,k,n] + bias), leading axes broadcast."""

    name = "dense.matmul"
    a = operand_def(TensorType)
    b = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    transpose_a = opt_prop_def(UnitAttr)
    transpose_b = opt_prop_def(UnitAttr)
    alpha = prop_def(FloatAttr[Float32Type], default_value=FloatAttr(1.0, f32))
    activation = prop_def(ActivationAttr, default_value=NO_ACTIVATION)
    result = result_def(TensorType)
    traits = traits_def(Pure(), Numeric())

    def __init__(
        self,
        a: SSAValue,
        b: SSAValue,
        bias: SSAValue | None,
        result_type: Attribute,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        alpha: float = 1.0,
        activation: ActivationAttr = NO_ACTIVATION,
    ) -> None:
        super().__init__(
            operands=[a, b, bias],
            result_types=[result_type],
            properties={
                "transpose_a": flag(transpose_a),
                "transpose_b": flag(transpose_b),
                "alpha": FloatAttr(alpha, f32),
                "activation": activation,
            },
        )

    def verify_(self) -> None:
        a = shapes.matrix("a", self.a, self.transpose_a is not None)
        b = shapes.matrix("b", self.b, self.transpose_b is not None)
        if shapes.differ(a[-1], b[-2]):
            raise VerifyException(f"a has K = {a[-1]} columns but b has K = {b[-2]} rows")
        result = (*shapes.broadcast([a[:-2], b[:-2]]), a[-2], b[-1])
        shapes.check("result", self.result, result, f32)
        if self.bias is not None:
            shapes.check_broadcastable("bias", shapes.dims(self.bias), result)


@irdl_op_definition
class ConvOp(DenseOp):
    """result[n,m,p] = activation(Σ x[n, c, p·stride + k·dilation − pad] · w[m,c,k] + bias[m]), c in m's group."""

    name = "dense.conv"
    x = operand_def(TensorType)
    w = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    strides = prop_def(_I64S)
    pads = prop_def(_I64S)
    dilations = prop_def(_I64S)
    group = prop_def(_I64, default_value=int_attr(1))
    activation = prop_def(ActivationAttr, default_value=NO_ACTIVATION)
    result = result_def(TensorType)
    traits = traits_def(Pure(), Numeric())

    def __init__(
        self,
        x: SSAValue,
        w: SSAValue,
        bias: SSAValue | None,
        result_type: Attribute,
        *,
        strides: Iterable[int],
        pads: Iterable[int],
        dilations: Iterable[int],
        group: int = 1,
        activation: ActivationAttr = NO_ACTIVATION,
    ) -> None:
        super().__init__(
            operands=[x, w, bias],
            result_types=[result_type],
            properties={
                "strides": ints(strides),
                "pads": ints(pads),
                "dilations": ints(dilations),
                "group": int_attr(group),
                "activation": activation,
            },
        )

    def verify_(self) -> None:
        x, w, group = shapes.dims(self.x), shapes.dims(self.w), self.group.value.data
        spatial = shapes.window(self, len(x), self.strides, self.pads, self.dilations)
        if len(w) != len(x):
            raise VerifyException(f"x has rank {len(x)} but w has rank {len(w)}")
        if group < 1 or shapes.differ(w[1] * group, x[1]):
            raise VerifyException(f"x has {x[1]} channels but w takes {w[1]} in each of {group} groups")
        if w[0].is_static and w[0].value % group:
            raise VerifyException(f"{w[0]} output channels do not divide into {group} groups")
        out = [shapes.window_dim(x[2 + i], w[2 + i], *spatial[i]) for i in range(len(spatial))]
        shapes.check("result", self.result, (x[0], w[0], *out), f32)
        if self.bias is not None:
            shapes.check_dims("bias", shapes.dims(self.bias), (w[0],))


@irdl_op_definition
class PoolOp(DenseOp):
    """result[n,c,p] = max or mean over the window of x[n,c] at p; padding never wins a max, counts for avg if told."""

    name = "dense.pool"
    x = operand_def(TensorType)
    kind = prop_def(PoolKindAttr)
    kernel = prop_def(_I64S)
    strides = prop_def(_I64S)
    pads = prop_def(_I64S)
    dilations = prop_def(_I64S)
    count_include_pad = opt_prop_def(UnitAttr)
    result = result_def(TensorType)
    traits = traits_def(Pure(), Numeric())
    ENUMS: ClassVar = {"kind": PoolKindAttr}

    def __init__(
        self,
        x: SSAValue,
        kind: PoolKind | str,
        result_type: Attribute,
        *,
        kernel: Iterable[int],
        strides: Iterable[int],
        pads: Iterable[int],
        dilations: Iterable[int],
        count_include_pad: bool = False,
    ) -> None:
        super().__init__(
            operands=[x],
            result_types=[result_type],
            properties={
                "kind": PoolKindAttr(PoolKind(kind)),
                "kernel": ints(kernel),
                "strides": ints(strides),
                "pads": ints(pads),
                "dilations": ints(dilations),
                "count_include_pad": flag(count_include_pad),
            },
        )

    def verify_(self) -> None:
        x, kernel, result = shapes.dims(self.x), self.kernel.get_values(), shapes.dims(self.result)
        spatial = shapes.window(self, len(x), self.strides, self.pads, self.dilations)
        if len(kernel) != len(spatial) or min(kernel, default=1) < 1:
            raise VerifyException(f"kernel {list(kernel)} does not fit {len(spatial)} spatial axes")
        if len(result) != len(x):
            raise VerifyException(f"x has rank {len(x)} but the result has rank {len(result)}")
        shapes.check("result", self.result, (x[0], x[1], *result[2:]), f32)
        for i, (stride, before, after, dilation) in enumerate(spatial):
            # ceil_mode may add one window that begins inside x or its leading padding.
            least = shapes.window_dim(x[2 + i], kernel[i], stride, before, after, dilation)
            extra = result[2 + i] - least
            if extra.is_static and not 0 <= extra.value <= 1:
                raise VerifyException(f"result has {result[2 + i]} windows on spatial axis {i}, fitting are {least}")


@irdl_op_definition
class LstmOp(DenseOp):
    """y, h, c = the ONNX LSTM with default activations; gate order i, o, f, c. `h0` and `c0` come together."""

    name = "dense.lstm"
    x = operand_def(TensorType)
    w = operand_def(TensorType)
    r = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    h0 = opt_operand_def(TensorType)
    c0 = opt_operand_def(TensorType)
    hidden = prop_def(_I64)
    direction = prop_def(DirectionAttr, default_value=DirectionAttr(Direction.FORWARD))
    y = result_def(TensorType)
    h = result_def(TensorType)
    c = result_def(TensorType)
    traits = traits_def(Pure(), Numeric())
    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    ENUMS: ClassVar = {"direction": DirectionAttr}

    def __init__(
        self,
        operands: Sequence[SSAValue],
        *,
        hidden: int,
        direction: Direction | str,
        result_types: Sequence[Attribute],
    ) -> None:
        """`operands`: x, w, r, then bias, h0 and c0 as far as they are there."""
        given = [*operands, *[None] * (6 - len(operands))]
        super().__init__(
            operands=given,
            result_types=result_types,
            properties={"hidden": int_attr(hidden), "direction": DirectionAttr(Direction(direction))},
        )

    def verify_(self) -> None:
        x, hidden = shapes.dims(self.x), Dim.of(self.hidden.value.data)
        if len(x) != 3:
            raise VerifyException(f"x has rank {len(x)}, must be [time, batch, input]")
        if (self.h0 is None) != (self.c0 is None) or (self.h0 is not None and self.bias is None):
            raise VerifyException("h0 and c0 come together, after a bias")
        steps, batch, width = x
        ways = Dim.of(2 if self.direction.data is Direction.BIDIRECTIONAL else 1)
        state = (ways, batch, hidden)
        for name, value, expected in (
            ("w", self.w, (ways, 4 * hidden, width)),
            ("r", self.r, (ways, 4 * hidden, hidden)),
            ("bias", self.bias, (ways, 8 * hidden)),
            ("h0", self.h0, state),
            ("c0", self.c0, state),
            ("y", self.y, (steps, ways, batch, hidden)),
            ("h", self.h, state),
            ("c", self.c, state),
        ):
            if value is not None:
                shapes.check(name, value, expected, f32)

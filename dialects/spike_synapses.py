"""Synapses of the `spike` dialect: where spikes meet weights and become currents.

x holds events or numbers. Weights in f32 give f32; weights in i8 give i32, exactly; a `ternary.weight` gives f32, its
integer sums exact before the scales. Meaning: `interp/spike_synapses.py`.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Sequence
from math import prod

from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, TensorType, f32, i8, i32, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
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
from neuc.dialects.dense_attrs import DenseOp, int_attr, ints
from neuc.dialects.dims import Dim
from neuc.dialects.spike_types import EventType
from neuc.dialects.store import dims_of, element_of, tensor_type
from neuc.dialects.ternary_types import TritsType

_I64S = DenseArrayBase.constr(i64)
_I64 = IntegerAttr.constr(i64)


def _is_whole(element: Attribute) -> bool:
    return isinstance(element, EventType) or element in (i8, i32)


def _check_input(x: SSAValue) -> Attribute:
    element = shapes.element(x)
    if element != f32 and not _is_whole(element):
        raise VerifyException(f"x holds {element}, should hold events, f32, i8 or i32")
    return element


def current_element(weight: SSAValue) -> Attribute:
    """What the currents of a synapse with this weight hold: i32 for i8 weights, else f32."""
    return i32 if isinstance(weight.type, TensorType) and element_of(weight) == i8 else f32


class SynapseOp(DenseOp, ABC):
    """What synapses with weights share."""

    x = operand_def(TensorType)
    weight = operand_def(TensorType | TritsType)
    bias = opt_operand_def(TensorType)
    current = result_def(TensorType)
    traits = traits_def(Pure())

    @property
    def trits(self) -> TritsType | None:
        """The type of a ternary weight; None for a tensor."""
        return self.weight.type if isinstance(self.weight.type, TritsType) else None

    def _verify_elements(self) -> None:
        element = _check_input(self.x)
        if self.trits is not None:
            if not isinstance(element, EventType) and element != i8:
                raise VerifyException(f"x holds {element}: ternary weights take events or i8")
        elif (weight := shapes.element(self.weight)) not in (f32, i8):
            raise VerifyException(f"weight holds {weight}, should hold f32 or i8")
        elif weight == i8 and not _is_whole(element):
            raise VerifyException(f"x holds {element}: weights in i8 take events, i8 or i32")

    def _verify_current(self, dims: Sequence[Dim], bias: Sequence[Dim]) -> None:
        held = current_element(self.weight)
        shapes.check("current", self.current, dims, held)
        if self.bias is not None:
            shapes.check("bias", self.bias, bias, held)


@irdl_op_definition
class LinearOp(SynapseOp):
    """current[…, n] = Σ_k x[…, k]·weight[n, k] + bias[n]."""

    name = "spike.linear"

    def __init__(self, x: SSAValue, weight: SSAValue, bias: SSAValue | None = None) -> None:
        rows = weight.type.rows if isinstance(weight.type, TritsType) else dims_of(weight)[0]
        result = tensor_type(current_element(weight), [*dims_of(x)[:-1], rows])
        super().__init__(operands=[x, weight, bias], result_types=[result])

    def verify_(self) -> None:
        self._verify_elements()
        x = shapes.dims(self.x)
        if not x:
            raise VerifyException("x is a scalar, should be […, K]")
        if self.trits is not None:
            n, k = Dim.of(self.trits.rows), Dim.of(self.trits.columns)
        elif len(weight := shapes.dims(self.weight)) == 2:
            n, k = weight
        else:
            raise VerifyException(f"weight has rank {len(weight)}, should be [N, K]")
        if shapes.differ(x[-1], k):
            raise VerifyException(f"x has K = {x[-1]} inputs but weight takes {k}")
        self._verify_current([*x[:-1], n], [n])


@irdl_op_definition
class ConvOp(SynapseOp):
    """`dense.conv` of x[N, C, …] with weight[M, C/group, …kernel]; a ternary weight is [M, C/group·kernel].

    `kernel` is there for ternary weights, whose type does not say it.
    """

    name = "spike.conv"
    kernel = opt_prop_def(_I64S)
    strides = prop_def(_I64S)
    pads = prop_def(_I64S)
    dilations = prop_def(_I64S)
    group = prop_def(_I64, default_value=int_attr(1))

    def __init__(
        self,
        x: SSAValue,
        weight: SSAValue,
        bias: SSAValue | None = None,
        *,
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        group: int = 1,
        kernel: Sequence[int] | None = None,
    ) -> None:
        dims = dims_of(x)
        if isinstance(weight.type, TritsType):
            assert kernel is not None
            rows, sizes = Dim.of(weight.type.rows), [Dim.of(k) for k in kernel]
        else:
            rows, _, *sizes = dims_of(weight)
        n = len(sizes)
        out = [
            shapes.window_dim(dims[2 + i], sizes[i], strides[i], pads[i], pads[i + n], dilations[i]) for i in range(n)
        ]
        super().__init__(
            operands=[x, weight, bias],
            result_types=[tensor_type(current_element(weight), [dims[0], rows, *out])],
            properties={
                "kernel": None if kernel is None else ints(kernel),
                "strides": ints(strides),
                "pads": ints(pads),
                "dilations": ints(dilations),
                "group": int_attr(group),
            },
        )

    def verify_(self) -> None:
        self._verify_elements()
        x, group = shapes.dims(self.x), self.group.value.data
        spatial = shapes.window(self, len(x), self.strides, self.pads, self.dilations)
        rows, kernel = self._weight_window(x, group)
        if len(kernel) != len(spatial):
            raise VerifyException(f"x has {len(spatial)} spatial axes but the kernel {len(kernel)}")
        if group < 1 or (rows.is_static and rows.value % group):
            raise VerifyException(f"{rows} output channels do not divide into {group} groups")
        out = [shapes.window_dim(x[2 + i], kernel[i], *spatial[i]) for i in range(len(spatial))]
        self._verify_current([x[0], rows, *out], [rows])

    def _weight_window(self, x: Sequence[Dim], group: int) -> tuple[Dim, Sequence[Dim]]:
        """Output channels and kernel sizes, after checking the input channels."""
        if self.trits is None:
            rows, channels, *kernel = shapes.dims(self.weight)
            if shapes.differ(channels * group, x[1]):
                raise VerifyException(f"x has {x[1]} channels but weight takes {channels} in each of {group} groups")
            return rows, kernel
        if self.kernel is None:
            raise VerifyException("a ternary weight needs the property kernel")
        sizes = self.kernel.get_values()
        if shapes.differ(x[1] * prod(sizes), Dim.of(self.trits.columns * group)):
            k = self.trits.columns
            raise VerifyException(f"K = {k} is not C/group·kernel for C = {x[1]}, group {group}, kernel {list(sizes)}")
        return Dim.of(self.trits.rows), [Dim.of(size) for size in sizes]


@irdl_op_definition
class ScaleOp(SynapseOp):
    """current = x·weight + bias element by element, both broadcast to x's shape: one synapse for each neuron."""

    name = "spike.scale"

    def __init__(self, x: SSAValue, weight: SSAValue, bias: SSAValue | None = None) -> None:
        super().__init__(operands=[x, weight, bias], result_types=[tensor_type(current_element(weight), dims_of(x))])

    def verify_(self) -> None:
        self._verify_elements()
        if self.trits is not None:
            raise VerifyException("a ternary weight has no element for each neuron: weight should be a tensor")
        dims = shapes.dims(self.x)
        shapes.check_broadcastable("weight", shapes.dims(self.weight), dims)
        shapes.check("current", self.current, dims, current_element(self.weight))
        if self.bias is not None:
            shapes.check_broadcastable("bias", shapes.dims(self.bias), dims)
            shapes.check_element("bias", self.bias, current_element(self.weight))


class WindowOp(DenseOp, ABC):
    """The window of both poolings, on the spatial axes of [N, C, …]; no dilation."""

    kernel = prop_def(_I64S)
    strides = prop_def(_I64S)
    pads = prop_def(_I64S)
    traits = traits_def(Pure())

    def _verify_window(self) -> list[Dim]:
        """The dims of what comes out, after checking the window."""
        x, kernel = shapes.dims(self.operands[0]), self.kernel.get_values()
        spatial = shapes.window(self, len(x), self.strides, self.pads, ints([1] * (len(x) - 2)))
        if len(kernel) != len(spatial) or min(kernel, default=1) < 1:
            raise VerifyException(f"kernel {list(kernel)} does not fit {len(spatial)} spatial axes")
        return [*x[:2], *(shapes.window_dim(x[2 + i], kernel[i], *spatial[i]) for i in range(len(spatial)))]


def _pooled(x: SSAValue, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int]) -> list[Dim]:
    dims, n = dims_of(x), len(kernel)
    return [
        *dims[:2],
        *(shapes.window_dim(dims[2 + i], kernel[i], strides[i], pads[i], pads[i + n], 1) for i in range(n)),
    ]


@irdl_op_definition
class SumPoolOp(WindowOp):
    """current = Σ x over the window; what padding adds is 0. f32 from f32; f32 or i32 from events and integers."""

    name = "spike.sum_pool"
    x = operand_def(TensorType)
    current = result_def(TensorType)

    def __init__(
        self,
        x: SSAValue,
        *,
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int],
        element: Attribute = f32,
    ) -> None:
        super().__init__(
            operands=[x],
            result_types=[tensor_type(element, _pooled(x, kernel, strides, pads))],
            properties={"kernel": ints(kernel), "strides": ints(strides), "pads": ints(pads)},
        )

    def verify_(self) -> None:
        element, held = _check_input(self.x), shapes.element(self.current)
        if held != f32 and not (held == i32 and _is_whole(element)):
            raise VerifyException(f"current holds {held} for x of {element}, should hold f32")
        shapes.check("current", self.current, self._verify_window())


@irdl_op_definition
class MaxPoolOp(WindowOp):
    """Max-pooling of currents as a difference in time: total' = total + x; current = max(total') − max(total).

    The currents sum up to the maximum of the summed currents, which is what a rate-coded ReLU network needs. Padding
    never wins. x, total and current all hold f32, or all i32.
    """

    name = "spike.max_pool"
    x = operand_def(TensorType)
    total = operand_def(TensorType)
    current = result_def(TensorType)
    next_total = result_def(TensorType)

    def __init__(
        self, x: SSAValue, total: SSAValue, *, kernel: Iterable[int], strides: Iterable[int], pads: Iterable[int]
    ) -> None:
        kernel, strides, pads = list(kernel), list(strides), list(pads)
        super().__init__(
            operands=[x, total],
            result_types=[tensor_type(element_of(x), _pooled(x, kernel, strides, pads)), total.type],
            properties={"kernel": ints(kernel), "strides": ints(strides), "pads": ints(pads)},
        )

    def verify_(self) -> None:
        element, dims = shapes.element(self.x), shapes.dims(self.x)
        if element not in (f32, i32):
            raise VerifyException(f"x holds {element}, should hold f32 or i32")
        shapes.check("total", self.total, dims, element)
        shapes.check("next total", self.next_total, dims, element)
        shapes.check("current", self.current, self._verify_window(), element)


SYNAPSES = (LinearOp, ConvOp, ScaleOp, SumPoolOp, MaxPoolOp)

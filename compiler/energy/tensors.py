"""Ordinary tensor operations beside a model's, as Python calls: what learning rules compute between relaxations.

Every call appends one `dense` operation to the program under construction. Tensors are f32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from neuc.compiler.energy.learning_maps import Array, ConvMap, Map
from neuc.compiler.energy.model import Model
from neuc.compiler.snn.composites.step_builder import Ops
from neuc.dialects.dense import ConcatOp, ConvOp, GatherOp, MatMulOp, PadOp, SliceOp, SoftmaxOp
from neuc.dialects.dense_attrs import NO_ACTIVATION, ActivationAttr, ActivationKind, ReduceKind
from neuc.dialects.dims import Dim, DimLike, product
from neuc.dialects.store import dims_of, tensor_type
from neuc.passes.scalar_builder import Scalar, maximum


class Tensors(Ops):
    """Appends `dense` operations to a model's program.

    Args:
        model: whose program it is.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model.block, model.context.weights)
        self.model = model

    def input(self, name: str, *shape: DimLike) -> SSAValue:
        """An input of the program."""
        return self.model.input(name, f32, shape)

    def matmul(
        self,
        a: SSAValue,
        b: SSAValue,
        bias: SSAValue | None = None,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        alpha: float = 1.0,
        relu: bool = False,
    ) -> SSAValue:
        """α a b + bias over the last two axes, relu of it if asked."""
        *outer, first, second = dims_of(a)
        columns = dims_of(b)[-2 if transpose_b else -1]
        type_ = tensor_type(f32, [*outer, second if transpose_a else first, columns])
        activation = ActivationAttr.of(ActivationKind.RELU) if relu else NO_ACTIVATION
        return self.add(
            MatMulOp(
                a,
                b,
                bias,
                type_,
                transpose_a=transpose_a,
                transpose_b=transpose_b,
                alpha=alpha,
                activation=activation,
            )
        )

    def forward(
        self,
        map_: Map,
        w: SSAValue,
        a: SSAValue,
        b: SSAValue | None = None,
        *,
        turned: bool = False,
        relu: bool = False,
    ) -> SSAValue:
        """What a layer makes of the values below, […, outputs]; `turned`: a matrix lies as [out, in]."""
        if not isinstance(map_, ConvMap):
            return self.matmul(a, w, b, transpose_b=turned, relu=relu)
        layer, lead = map_.layer, dims_of(a)[:-1]
        image, filters = self.reshape(a, (product(lead), *map_.shape)), self.reshape(w, map_.filters)
        type_ = tensor_type(f32, (product(lead), layer.channels, *map_.size))
        made = self.add(
            ConvOp(image, filters, None, type_, strides=[layer.stride] * 2, pads=[layer.pad] * 4, dilations=[1, 1])
        )
        found = self.reshape(made, (*lead, map_.outputs))
        found = found if b is None else self.sum(found, b)
        return self.relu(found) if relu else found

    def back(self, map_: Map, w: SSAValue, error: SSAValue) -> SSAValue:
        """The transposed map of values above, […, inputs]: of a convolution, each patch's share where it came from."""
        if not isinstance(map_, ConvMap):
            return self.matmul(error, w, transpose_b=True)
        lead, (positions, taps) = dims_of(error)[:-1], map_.patches.shape
        channels = map_.layer.channels
        errors = self.reshape(error, (product(lead), channels, positions))
        shares = self.matmul(errors, self.reshape(w, (channels, taps)), transpose_a=True)
        flat = self.reshape(shares, (product(lead), positions * taps))
        gathered = self._gathered(flat, map_.landings)
        return self.reshape(self.reduce(ReduceKind.SUM, gathered, 2), (*lead, map_.inputs))

    def slope(self, map_: Map, a: SSAValue, error: SSAValue, scale: float = 1.0) -> SSAValue:
        """Σ over rows of error times d(values above)/dw, times a number; matrices of rows."""
        if not isinstance(map_, ConvMap):
            return self.matmul(a, error, transpose_a=True, alpha=scale)
        positions, taps = map_.patches.shape
        errors = self.reshape(error, (dims_of(error)[0], map_.layer.channels, positions))
        each = self.matmul(errors, self._gathered(a, map_.patches), alpha=scale)
        return self.reshape(self.reduce(ReduceKind.SUM, each, 0), (map_.layer.channels * taps,))

    def _gathered(self, x: SSAValue, places: Array) -> SSAValue:
        """Columns of a matrix, [rows, …places]; 0 where a place is −1."""
        rows, columns = dims_of(x)
        if places.min() < 0:  # places count from the end, too
            x = self.add(PadOp(x, [0, 0, 0, 1], tensor_type(f32, (rows, columns + 1))))
        at = self.constant("places", places.astype(np.int32))
        return self.add(GatherOp(x, at, 1, tensor_type(f32, (rows, *places.shape))))

    def relu(self, x: SSAValue) -> SSAValue:
        """max(x, 0)."""
        return self.map(lambda value: maximum(value, 0.0), x)

    def concat(self, tensors: Sequence[SSAValue], axis: int) -> SSAValue:
        """Tensors one after another along an axis."""
        dims = list(dims_of(tensors[0]))
        dims[axis] = sum((dims_of(t)[axis] for t in tensors), Dim.of(0))
        return self.add(ConcatOp(tensors, axis, tensor_type(f32, dims)))

    def rows(self, x: SSAValue, begin: int, end: int) -> SSAValue:
        """x[begin:end] of a matrix."""
        type_ = tensor_type(f32, [end - begin, dims_of(x)[1]])
        return self.add(SliceOp(x, [begin, 0], [1, 1], type_))

    def softmax(self, x: SSAValue) -> SSAValue:
        """Along the last axis."""
        return self.add(SoftmaxOp(x, len(dims_of(x)) - 1))

    def mean_square(self, x: SSAValue) -> SSAValue:
        """The mean of squares of each row, [rows, 1]."""
        mean = self.reduce(ReduceKind.MEAN, self.map(_square, x), 1)
        return self.reshape(mean, (dims_of(x)[0], 1))

    def total(self, x: SSAValue) -> SSAValue:
        """Σ over the rows."""
        return self.reduce(ReduceKind.SUM, x, 0)


def width(x: SSAValue) -> int:
    """The size of the last axis."""
    return dims_of(x)[-1].value


def _square(x: Scalar) -> Scalar:
    return x * x

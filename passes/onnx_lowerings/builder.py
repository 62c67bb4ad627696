"""What the rules of this folder build with: a `Builder` for one ONNX node, which infers result shapes as it goes.

A rule is `rule(node, build) -> results`, one value for each output the node has (None for one that nobody can use).
It raises `Unsupported` with the reason when it cannot lower the node; nothing it built is kept then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from xdsl.dialects.builtin import f32, i1, i32, i64
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from neuc.dialects import dense
from neuc.dialects import dense_shapes as shapes
from neuc.dialects.dense_attrs import PadMode, ReduceKind
from neuc.dialects.dims import Dim, DimLike, product
from neuc.dialects.locations import node_names
from neuc.dialects.onnx import OnnxOp
from neuc.dialects.store import constant_value, dims_of, element_of, make_constant, numpy_dtype, tensor_type
from neuc.dialects.weight_store import WeightStore
from neuc.passes.scalar_builder import Body, Scalar, cast

SymbolicValues = Mapping[SSAValue, tuple[Dim, ...]]
ARITHMETIC = (f32, i64, i32, i1)
"""Element types `dense.map` computes with; arithmetic kernels are f32 only."""


class Unsupported(Exception):
    """A node cannot be lowered; the message says why."""


@dataclass
class Builder:
    """Builds the operations that replace one node.

    Attributes:
        node: the node.
        store: where constants go.
        values: what is known about integer tensors.
        ops: what has been built, in order.
    """

    node: OnnxOp
    store: WeightStore
    values: SymbolicValues
    ops: list[Operation] = field(default_factory=list)

    # What is known about operands.

    def operand(self, index: int) -> SSAValue:
        """Input `index`, which must be there."""
        value = self.node.operand_at(index)
        if value is None:
            raise Unsupported(f"input {index} is absent")
        return value

    def dims(self, value: SSAValue) -> tuple[Dim, ...]:
        """The dims of `value`."""
        try:
            return dims_of(value)
        except ValueError as error:
            raise Unsupported(f"the shape of an input is not known ({error})") from error

    def result_dims(self, index: int = 0) -> tuple[Dim, ...]:
        """The dims that shape inference found for the node's result."""
        return self.dims(self.node.results[index])

    def axis(self, value: int, rank: int) -> int:
        """A possibly negative axis as one in [0, rank)."""
        if not -rank <= value < rank:
            raise Unsupported(f"axis {value} of a tensor of rank {rank}")
        return value % rank

    def array(self, value: SSAValue | None) -> np.ndarray | None:
        """The elements of `value` if it is a constant."""
        return None if value is None else constant_value(value, self.store)

    def integers(self, value: SSAValue) -> tuple[Dim, ...] | None:
        """The elements of an integer tensor if they are known, symbols included."""
        array = self.array(value)
        if array is not None and array.dtype.kind in "iub" and array.ndim <= 1:
            return tuple(Dim.of(int(v)) for v in array.reshape(-1))
        return self.values.get(value)

    def static_integers(self, value: SSAValue, what: str) -> tuple[int, ...]:
        """The elements of an integer tensor that must be known now."""
        found = self.integers(value)
        if found is None or not all(d.is_static for d in found):
            raise Unsupported(f"{what} is computed at run time")
        return tuple(d.value for d in found)

    def require_float(self, *values: SSAValue | None) -> None:
        """Refuse other element types than f32."""
        self.require((f32,), *values)

    def require(self, elements: Sequence[Attribute], *values: SSAValue | None) -> None:
        """Refuse element types that are not in `elements`."""
        for value in values:
            if value is not None and element_of(value) not in elements:
                raise Unsupported(f"{element_of(value)} arithmetic")

    # Building.

    def add(self, op: Operation) -> SSAValue:
        """Append `op`; its first result."""
        self.ops.append(op)
        return op.results[0]

    def constant(self, array: np.ndarray, part: str = "constant") -> SSAValue:
        """A constant of this node."""
        name = next(iter(node_names(self.node)), self.node.op_type)
        return self.add(make_constant(f"{name}.{part}", array, self.store))

    def scalar(self, value: float, element: Attribute = f32) -> SSAValue:
        """A constant of rank 0."""
        return self.constant(np.array(value, numpy_dtype(element)), f"scalar_{value}")

    def map(self, inputs: Sequence[SSAValue], body: Body, dims: Sequence[Dim] | None = None) -> SSAValue:
        """A `dense.map` whose body is the Python function `body` of Scalars."""
        try:
            shape = shapes.broadcast([self.dims(v) for v in inputs]) if dims is None else dims
        except VerifyException as error:
            raise Unsupported(str(error)) from error
        block = Block(arg_types=[element_of(v) for v in inputs])
        result = body(*(Scalar(arg, block) for arg in block.args))
        block.add_op(dense.YieldOp(result.value))
        return self.add(dense.MapOp(inputs, tensor_type(result.type, shape), Region(block)))

    def reshape(self, x: SSAValue, dims: Sequence[DimLike]) -> SSAValue:
        """`x` in another shape; `x` itself if that is its shape, a constant if it is one."""
        target = tuple(Dim.of(d) for d in dims)
        if target == self.dims(x):
            return x
        array = self.array(x)
        if array is not None and all(dim.is_static for dim in target):
            return self.constant(array.reshape([dim.value for dim in target]), "reshaped")
        return self.add(dense.ReshapeOp(x, tensor_type(element_of(x), target)))

    def transpose(self, x: SSAValue, perm: Sequence[int]) -> SSAValue:
        """`x` with axes permuted; `x` itself for the identity."""
        if list(perm) == sorted(perm):
            return x
        dims = self.dims(x)
        return self.add(dense.TransposeOp(x, perm, tensor_type(element_of(x), [dims[p] for p in perm])))

    def broadcast(self, x: SSAValue, dims: Sequence[DimLike]) -> SSAValue:
        """`x` repeated to shape `dims`."""
        target = tuple(Dim.of(d) for d in dims)
        if target == self.dims(x):
            return x
        return self.add(dense.BroadcastOp(x, tensor_type(element_of(x), target)))

    def slice(
        self, x: SSAValue, starts: Sequence[DimLike], sizes: Sequence[DimLike], steps: Sequence[int] | None = None
    ) -> SSAValue:
        """A strided part of `x`; `x` itself if that is all of it."""
        steps = steps or [1] * len(starts)
        exact = [Dim.of(s) for s in sizes]
        if tuple(exact) == self.dims(x) and all(s == 1 for s in steps):
            return x
        return self.add(dense.SliceOp(x, starts, steps, tensor_type(element_of(x), exact)))

    def concat(self, xs: Sequence[SSAValue], axis: int) -> SSAValue:
        """`xs` joined along `axis`."""
        if len(xs) == 1:
            return xs[0]
        every = [self.dims(x) for x in xs]
        dims = [next((d for d in column if d.is_static), column[0]) for column in zip(*every)]
        dims[axis] = sum((d[axis] for d in every), Dim.of(0))
        return self.add(dense.ConcatOp(xs, axis, tensor_type(element_of(xs[0]), dims)))

    def pad(self, x: SSAValue, pads: Sequence[int], mode: PadMode = PadMode.CONSTANT, value: float = 0.0) -> SSAValue:
        """`x` padded; `x` itself for no padding."""
        if not any(pads):
            return x
        dims = self.dims(x)
        padded = [d + pads[i] + pads[i + len(dims)] for i, d in enumerate(dims)]
        return self.add(dense.PadOp(x, pads, tensor_type(element_of(x), padded), mode=mode, value=value))

    def gather(self, data: SSAValue, indices: SSAValue, axis: int) -> SSAValue:
        """Elements of `data` picked along `axis`."""
        dims = self.dims(data)
        shape = [*dims[:axis], *self.dims(indices), *dims[axis + 1 :]]
        return self.add(dense.GatherOp(data, indices, axis, tensor_type(element_of(data), shape)))

    def reduce(self, x: SSAValue, kind: ReduceKind, axes: Sequence[int], keepdims: bool = True) -> SSAValue:
        """A reduction; `x` itself over no axes."""
        self.require_float(x)
        if not axes:
            return x
        shape = shapes.reduced(self.dims(x), axes, keepdims)
        return self.add(dense.ReduceOp(x, kind, sorted(axes), keepdims, tensor_type(f32, shape)))

    def matmul(
        self,
        a: SSAValue,
        b: SSAValue,
        bias: SSAValue | None = None,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        alpha: float = 1.0,
    ) -> SSAValue:
        """A matrix product."""
        self.require_float(a, b, bias)
        left, right = self.dims(a), self.dims(b)
        rows, columns = left[-1 if transpose_a else -2], right[-2 if transpose_b else -1]
        dims = (*shapes.broadcast([left[:-2], right[:-2]]), rows, columns)
        return self.add(
            dense.MatMulOp(
                a, b, bias, tensor_type(f32, dims), transpose_a=transpose_a, transpose_b=transpose_b, alpha=alpha
            )
        )

    def integer_tensor(self, dims: Sequence[Dim], type_: Attribute) -> SSAValue:
        """An integer tensor of type `type_` with elements `dims`."""
        shape, element = dims_of(type_), element_of(type_)
        dtype = numpy_dtype(element)
        if dtype is None or not all(d.is_static for d in shape) or product(shape) != len(dims):
            raise Unsupported("a shape computation of unknown length")
        if all(d.is_static for d in dims):
            return self.constant(np.array([d.value for d in dims], dtype).reshape([d.value for d in shape]), "value")
        value = self.add(dense.DimsOp(dims))
        if element != i64:
            value = self.cast(value, element)
        return self.reshape(value, shape)

    def cast(self, x: SSAValue, element: Attribute) -> SSAValue:
        """`x` with elements of another type."""
        if element_of(x) == element:
            return x
        for type_ in (element_of(x), element):
            if numpy_dtype(type_) is None:
                raise Unsupported(f"conversion from {element_of(x)} to {element}")

        def body(scalar: Scalar) -> Scalar:
            converted = cast(scalar, element)
            if converted is None:
                raise Unsupported(f"conversion from {scalar.type} to {element}")
            return converted

        return self.map([x], body)


Rule = Callable[[OnnxOp, Builder], Sequence[SSAValue | None]]


def only(value: SSAValue, node: OnnxOp) -> list[SSAValue | None]:
    """Results of a node whose further outputs must not be used."""
    for result in node.results[1:]:
        if result.first_use is not None:
            raise Unsupported(f"output {result.index} is used")
    return [value, *[None] * (len(node.results) - 1)]

"""Shape arithmetic of the `dense` dialect: what its verifiers compare with and lowerings compute result types from.

Two dims count as different only when they differ for every value of the symbols; what only run time can tell is let
through, and `undecided` collects it for whoever can check it then. Every message names the sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from xdsl.dialects.builtin import DenseArrayBase, IntegerType
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.utils.exceptions import VerifyException

from neuc.dialects.dims import Dim, DimLike
from neuc.dialects.store import dims_of, element_of

ONE = Dim.of(1)

_UNDECIDED: ContextVar[list[Dim] | None] = ContextVar("undecided", default=None)


@contextmanager
def undecided() -> Iterator[list[Dim]]:
    """Collect what the checks made meanwhile leave to run time: expressions that have to be 0."""
    found: list[Dim] = []
    token = _UNDECIDED.set(found)
    try:
        yield found
    finally:
        _UNDECIDED.reset(token)


def _leave_to_run_time(zero: Dim) -> None:
    found = _UNDECIDED.get()
    if found is not None and zero != 0 and zero not in found:
        found.append(zero)


def dims(value: SSAValue) -> tuple[Dim, ...]:
    """`value`'s dims.

    Raises:
        VerifyException: its type has none.
    """
    try:
        return dims_of(value)
    except ValueError as error:
        raise VerifyException(str(error)) from error


def element(value: SSAValue) -> Attribute:
    """`value`'s element type.

    Raises:
        VerifyException: it is no tensor.
    """
    try:
        return element_of(value)
    except ValueError as error:
        raise VerifyException(str(error)) from error


def differ(a: Dim, b: Dim) -> bool:
    """Whether two dims are different whatever the symbols are."""
    difference = a - b
    if difference.is_static:
        return difference.value != 0
    _leave_to_run_time(difference)
    return False


def _fits(dim: Dim, wanted: Dim) -> bool:
    """Whether `dim` can be broadcast to `wanted`: is 1, or is the same for some value of the symbols."""
    if dim == 1 or dim == wanted:
        return True
    if dim.is_static and wanted.is_static:
        return False
    _leave_to_run_time((dim - 1) * (dim - wanted))
    return True


def broadcast(shapes: Sequence[Sequence[Dim]]) -> tuple[Dim, ...]:
    """The broadcast shape as numpy has it; of two dims that may be equal or 1, the larger counts.

    Raises:
        VerifyException: static sizes that do not go together.
    """
    result: list[Dim] = []
    for shape in shapes:
        missing = len(shape) - len(result)
        if missing > 0:
            result = [ONE] * missing + result
        for i, dim in enumerate(shape, start=len(result) - len(shape)):
            if result[i] == 1:
                result[i] = dim
            elif dim.is_static and result[i].is_static and dim != 1 and dim != result[i]:
                raise VerifyException(f"sizes {result[i]} and {dim} do not broadcast")
            elif dim.is_static:
                result[i] = result[i] if dim == 1 else dim
            elif not result[i].is_static:
                result[i] = result[i].maximum(dim)
    for shape in shapes:
        for dim, wanted in zip(reversed(shape), reversed(result)):
            _fits(dim, wanted)
    return tuple(result)


def reduced(shape: Sequence[Dim], axes: Sequence[int], keepdims: bool) -> tuple[Dim, ...]:
    """The shape after reducing `axes`."""
    if keepdims:
        return tuple(ONE if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def matrix(name: str, value: SSAValue, transposed: bool) -> tuple[Dim, ...]:
    """The dims of a matmul operand, its last two in the order the product reads them."""
    found = dims(value)
    if len(found) < 2:
        raise VerifyException(f"{name} has rank {len(found)}, a matrix needs 2")
    return (*found[:-2], found[-1], found[-2]) if transposed else found


def window_dim(size: DimLike, kernel: DimLike, stride: int, before: int, after: int, dilation: int) -> Dim:
    """How many windows fit on an axis."""
    reach = (Dim.of(kernel) - 1) * dilation
    return (Dim.of(size) + before + after - reach - 1) // stride + 1


def window(
    op: Operation,
    rank: int,
    strides: DenseArrayBase[IntegerType],
    pads: DenseArrayBase[IntegerType],
    dilations: DenseArrayBase[IntegerType],
) -> list[tuple[int, int, int, int]]:
    """(stride, pad before, pad after, dilation) of each spatial axis of a conv or pool on rank `rank`."""
    n = rank - 2
    s, p, d = strides.get_values(), pads.get_values(), dilations.get_values()
    if n < 1:
        raise VerifyException(f"x has rank {rank}, {op.name} needs at least 3")
    if (len(s), len(p), len(d)) != (n, 2 * n, n):
        raise VerifyException(
            f"{n} spatial axes, but {len(s)} strides, {len(p)} pads (begins then ends) and {len(d)} dilations"
        )
    if min(s) < 1 or min(d) < 1 or min(p) < 0:
        raise VerifyException(
            f"strides {list(s)} and dilations {list(d)} must be positive, pads {list(p)} not negative"
        )
    return [(s[i], p[i], p[i + n], d[i]) for i in range(n)]


def check_axes(name: str, axes: Sequence[int], rank: int) -> None:
    """Raise unless every axis is in [0, rank)."""
    for axis in axes:
        if not 0 <= axis < rank:
            raise VerifyException(f"{name}: {axis} is not an axis of a tensor of rank {rank}")


def check_element(name: str, value: SSAValue, expected: Attribute) -> None:
    """Raise unless `value` holds elements of type `expected`."""
    if element(value) != expected:
        raise VerifyException(f"{name} holds {element(value)}, should hold {expected}")


def shape_of(value: SSAValue, name: str, expected: Attribute) -> tuple[Dim, ...]:
    """The dims of a tensor operand or result, after checking its element type.

    Raises:
        VerifyException: it is no tensor of that element type.
    """
    check_element(name, value, expected)
    return dims(value)


def check_dims(name: str, found: Sequence[Dim], expected: Sequence[Dim]) -> None:
    """Raise unless the shapes can be the same."""
    if len(found) != len(expected) or any(differ(a, b) for a, b in zip(found, expected)):
        raise VerifyException(f"{name} has shape {shape_text(found)}, should have {shape_text(expected)}")


def check(name: str, value: SSAValue, expected: Sequence[Dim], held: Attribute | None = None) -> None:
    """Raise unless `value` can have the shape `expected` (and holds `held`)."""
    check_dims(name, dims(value), expected)
    if held is not None:
        check_element(name, value, held)


def check_broadcastable(name: str, shape: Sequence[Dim], target: Sequence[Dim]) -> None:
    """Raise unless `shape` can be broadcast to `target`."""
    if len(shape) > len(target) or not all(_fits(a, b) for a, b in zip(reversed(shape), reversed(target))):
        raise VerifyException(f"{name} of shape {shape_text(shape)} does not broadcast to {shape_text(target)}")


def shape_text(shape: Iterable[Dim]) -> str:
    """A shape for messages: ``[B, 3, 224]``."""
    return f"[{', '.join(str(d) for d in shape)}]"

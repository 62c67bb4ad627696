"""Iteration spaces of the strided kernels: shapes and strides as `Dim`s, broadcast and collapsed to few dims.

Pure arithmetic on dims, shared by the element-wise, movement and reduction lowerings. No IR, no kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from neuc.dialects.dims import Dim, product

InnerStride = Literal["unit", "zero", "any"]


@dataclass(frozen=True)
class IterationSpace:
    """A loop nest: `dims` from outermost to innermost, and each operand's element stride in every dim."""

    dims: tuple[Dim, ...]
    strides: tuple[tuple[Dim, ...], ...]

    @property
    def size(self) -> Dim:
        """The number of points."""
        return product(self.dims)

    def inner(self) -> tuple[InnerStride, ...]:
        """What is known at compile time of each operand's innermost stride."""
        return tuple(classify_stride(strides[-1]) for strides in self.strides)


def classify_stride(stride: Dim) -> InnerStride:
    """The class of an innermost stride."""
    if stride == 1:
        return "unit"
    return "zero" if stride == 0 else "any"


def contiguous_strides(dims: Sequence[Dim]) -> tuple[Dim, ...]:
    """Row-major element strides."""
    return tuple(product(dims[i + 1 :]) for i in range(len(dims)))


def broadcast_strides(dims: Sequence[Dim], result: Sequence[Dim]) -> tuple[Dim, ...]:
    """Strides that read a contiguous tensor of shape `dims` as if it had the broadcast shape `result`.

    A symbolic dim that is not provably the result's may be 1 at run time: its stride then becomes an expression that
    is 0 exactly in that case.
    """
    missing = len(result) - len(dims)
    strides = [Dim.of(0)] * missing
    for dim, wanted, stride in zip(dims, result[missing:], contiguous_strides(dims), strict=True):
        if dim == wanted or (dim.is_static and dim.value != 1):
            strides.append(stride)
        elif dim == 1:
            strides.append(Dim.of(0))
        else:
            strides.append((dim - 1).minimum(1) * stride)
    return tuple(strides)


def collapse(dims: Sequence[Dim], strides: Sequence[Sequence[Dim]]) -> IterationSpace:
    """Drop dims of size 1 and merge neighbours that every operand walks as one; at least one dim is left."""
    kept: list[int] = []
    merged = list(dims)
    for axis in reversed(range(len(dims))):
        if dims[axis] == 1:
            continue
        if kept:
            inner = kept[-1]
            if all(s[axis] == s[inner] * merged[inner] for s in strides):
                merged[inner] = merged[axis] * merged[inner]
                continue
        kept.append(axis)
    kept.reverse()
    if not kept:
        return IterationSpace((Dim.of(1),), tuple((Dim.of(1),) for _ in strides))
    return IterationSpace(tuple(merged[axis] for axis in kept), tuple(tuple(s[axis] for axis in kept) for s in strides))


def split_at(dims: Sequence[Dim], first: int, count: int = 1) -> tuple[Dim, Dim, Dim]:
    """The sizes before, of and after the axes ``first … first + count - 1``."""
    return product(dims[:first]), product(dims[first : first + count]), product(dims[first + count :])


def axis_groups(axes: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of neighbouring axes as (first, count), innermost run first."""
    groups: list[tuple[int, int]] = []
    for axis in sorted(axes):
        if groups and sum(groups[-1]) == axis:
            groups[-1] = (groups[-1][0], groups[-1][1] + 1)
        else:
            groups.append((axis, 1))
    return groups[::-1]

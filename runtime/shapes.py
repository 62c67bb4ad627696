"""Shapes against symbolic signatures: binding symbols to sizes, and sizes to numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from neuc.errors import Error
from neuc.runtime.expr import MAX_VALUE, Expr
from neuc.runtime.program import IoSpec, Scalar


class CompiledShape:
    """The shape of an `IoSpec`, ready to be matched against arrays and evaluated."""

    def __init__(self, spec: IoSpec) -> None:
        self.spec = spec
        self.dtype: np.dtype[np.generic] = np.dtype(spec.dtype)
        self.rank = len(spec.shape)
        self._exprs = [Expr.of(dim) for dim in spec.shape]
        self._plain = [dim if isinstance(dim, str) and dim.isidentifier() else None for dim in spec.shape]
        static = [expr.constant for expr in self._exprs]
        self.static: tuple[int, ...] | None = tuple(d for d in static if d is not None)
        if len(self.static) != self.rank:
            self.static = None

    def names(self, axis: int) -> frozenset[str]:
        """The symbols a dim depends on."""
        return self._exprs[axis].names

    def bind(self, shape: Sequence[int], symbols: dict[str, int]) -> None:
        """Give each symbol that stands alone in a dim, and has no size yet, the size found there."""
        for name, size in zip(self._plain, shape):
            if name is not None:
                symbols.setdefault(name, size)

    def mismatch(self, shape: Sequence[int], symbols: Mapping[str, int]) -> int | None:
        """The first axis whose size is not what the signature says, or None."""
        for axis, (name, size) in enumerate(zip(self._plain, shape)):
            if name is None:
                expr = self._exprs[axis]
                want = expr.evaluate(symbols) if expr.constant is None else expr.constant
            else:
                want = symbols[name]
            if want != size:
                return axis
        return None

    def evaluate(self, symbols: Mapping[str, int]) -> tuple[int, ...]:
        """The concrete shape."""
        if self.static is not None:
            return self.static
        shape = tuple(expr.evaluate(symbols) for expr in self._exprs)
        if any(size < 0 for size in shape) or math.prod(shape) * self.dtype.itemsize > MAX_VALUE:
            raise bad_size(f"shape {shape} of '{self.spec.name or 'a value'}'", symbols)
        return shape


def size_of(what: str, value: Scalar, symbols: Mapping[str, int]) -> int:
    """A non-negative size."""
    size = Expr.of(value).evaluate(symbols)
    if size < 0:
        raise bad_size(f"{what} is {size}", symbols)
    return size


def bad_size(what: str, symbols: Mapping[str, int]) -> Error:
    """Sizes that make no sense for this program."""
    sizes = ", ".join(f"{name}={size}" for name, size in symbols.items()) or "no symbols"
    return Error("NEUC-E314", f"{what} with {sizes}", hint="these input sizes do not fit the model")
